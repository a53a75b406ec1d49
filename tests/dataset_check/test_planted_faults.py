"""Records with each fault planted: every one is named with its file and record, and decides the exit status."""

import base64
import io
import json
import os
import re
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax import files
from deeplab2_kmax.cli import check_dataset
from deeplab2_kmax.cli import main as command
from deeplab2_kmax.dataset_check import FaultKind, scan
from deeplab2_kmax.dataset_check.faults import NO_LIMITS
from deeplab2_kmax.dataset_check.records import check_record, read_content
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.input_pipeline.decoding import decode_record
from deeplab2_kmax.pictures import PNG_START
from deeplab2_kmax.records import schema
from deeplab2_kmax.records.tfrecord import regions

HEIGHT, WIDTH = 20, 30
CLASSES = [
    {"id": 1, "is_thing": True, "name": "car"},
    {"id": 2, "is_thing": False, "name": "road"},
    {"id": 4, "is_thing": False, "name": "sea"},
]


@pytest.fixture
def descriptor(tmp_path):
    content = {"name": "own", "ignore_label": 0, "label_divisor": 16, "classes": CLASSES}
    (tmp_path / "own.json").write_text(json.dumps(content))
    return str(tmp_path / "own.json")


def _label(*ids):
    """Stripes of panoptic ids, from left to right, as wide as each other."""
    return np.broadcast_to(np.repeat(ids, WIDTH // len(ids)), (HEIGHT, WIDTH)).astype(np.int32)


GOOD = _label(17, 18, 32)


def _record(name, label=GOOD, edit=None):
    image = np.random.RandomState(len(name)).randint(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="jpeg")
    example = tf.train.Example.FromString(schema.encode_record(encoded.getvalue(), "jpeg", name, label))
    if edit is not None:
        edit(example.features.feature)
    return example.SerializeToString()


def _cut(features):
    encoded = features[schema.IMAGE_ENCODED].bytes_list
    encoded.value[0] = encoded.value[0][:-300]


def _set(key, value):
    def edit(features):
        values = features[key].bytes_list if isinstance(value, bytes) else features[key].int64_list
        values.value[0] = value

    return edit


# (record, what is said about it).
PLANTED = [
    (_record("good"), None),
    (
        _record("beyond", _label(17, 48, 32)),
        "200 pixels of class 3 (panoptic id 48 = 3 * 16 + 0), which is not in own",
    ),
    (_record("numbered", _label(17, 33, 32)), "200 pixels of 'road' (class 2) with an instance id"),
    (_record("crowded", _label(17, 18, 19, 20, 21)), "5 things, but max_thing_id of the config is 4"),
    (_record("segments", _label(17, 18, 19, 32, 64)), "5 segments (3 things and 2 stuff classes), but the model has 4"),
    (_record("void", _label(0)), "every pixel is void"),
    (_record("crowd", _label(16, 32)), "50.0 % of the pixels are things, all with instance id 0"),
    (_record("good"), "its image has the same name as that of {shard}, record 0"),
    (_record("cut", edit=_cut), "its image is broken"),
    (_record("text", edit=_set(schema.IMAGE_ENCODED, b"no image")), "its image cannot be read: not an image"),
    (
        _record("wide", edit=_set(schema.IMAGE_WIDTH, 31)),
        "expected an image of 20 x 31 pixels (height x width) as the record says, got 20 x 30",
    ),
    (
        _record("short", edit=_set(schema.LABEL_ENCODED, b"1234")),
        "expected an int32 label of 2,400 bytes for the record's size 20 x 30, got 4 bytes",
    ),
    (
        _record("png", edit=_set(schema.LABEL_FORMAT, b"png")),
        "expected a label of format 'raw' (panoptic ids, which mask transformers need), got 'png'",
    ),
    (_record("bare", label=None), f"expected one value of {schema.LABEL_ENCODED!r}, got none or several"),
    (b"\xff" * 9, "expected a tf.train.Example, got 9 bytes of something else"),
    (
        _record("outside", edit=_set(schema.IMAGE_FILENAME, b"../../outside")),
        "no result can have the name b'../../outside'; evaluation will write 'outside'",
    ),
    (_record("latin1", edit=_set(schema.IMAGE_FILENAME, b"stra\xdfe")), "evaluation will write 'stra\\\\xdfe'"),
    (_record("largest", _label(31, 32)), None),
]


def _twice(features):
    features[schema.IMAGE_FILENAME].bytes_list.value.append(b"another name")


def _empty(features):
    features[schema.IMAGE_HEIGHT].int64_list.value[0] = 0
    features[schema.LABEL_ENCODED].bytes_list.value[0] = b""


@pytest.mark.parametrize(
    ("edit", "kind", "text"),
    [
        (
            _set(schema.LABEL_ENCODED, bytes(2408)),
            FaultKind.SIZE,
            "expected an int32 label of 2,400 bytes for the record's size 20 x 30, got 2,408 bytes",
        ),
        (
            _set(schema.IMAGE_HEIGHT, 21),
            FaultKind.SIZE,
            "expected an image of 21 x 30 pixels",
        ),
        (_empty, FaultKind.SIZE, "expected a height and width of at least 1, got 0 x 30"),
        (
            _set(schema.LABEL_FORMAT, b"text"),
            FaultKind.BROKEN_RECORD,
            "expected a label of format 'raw' (panoptic ids, which mask transformers need), got 'text'",
        ),
        (_twice, FaultKind.BROKEN_RECORD, f"expected one value of {schema.IMAGE_FILENAME!r}, got none or several"),
    ],
    ids=["long label", "other height", "no pixels", "format", "two names"],
)
def test_records_that_differ_in_one_field_are_not_passed_over(descriptor, edit, kind, text):
    # Training refuses each of them.
    facts = check_record(_record("name", edit=edit), load_dataset(descriptor), True, NO_LIMITS)
    assert facts.areas is None or kind is FaultKind.SIZE
    assert any(fault.kind is kind and text in fault.text for fault in facts.faults), facts.faults


def _write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def _check(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        command.main(["check-dataset", *map(str, arguments)])
    said = capsys.readouterr().out
    # A path that is longer than a terminal is wide has a line for itself.
    assert not [line for line in said.splitlines() if len(line) > 80 and " " in line.strip()]
    # A long text goes on in lines that are indented further than its first.
    return ended.value.code, re.sub(r"\n {6}(?=\S)", " ", said)


def _flat(said):
    return " ".join(said.split())


def test_every_planted_fault_is_named(tmp_path, descriptor, capsys):
    shard = _write(tmp_path / "train-0.tfrecord", [record for record, _ in PLANTED])
    damaged = _write(tmp_path / "train-1.tfrecord", [_record("first"), _record("second")])
    with open(damaged, "r+b") as file:
        file.seek(-100, io.SEEK_END)
        file.write(b"damage")
    status, said = _check(
        capsys, "--dataset", descriptor, "--file_pattern", tmp_path / "train-*", "--max_thing_id", 4,
        "--num_mask_slots", 4, "--html", tmp_path / "page" / "check.html",
    )  # fmt: skip
    assert status == 1
    for index, (record, expected) in enumerate(PLANTED):
        place = re.compile(rf"\s*{re.escape(shard)}, record {index}\b")
        lines = [line for line in said.splitlines() if place.match(line)]
        if expected is None:
            assert not lines, record
        else:
            assert expected.format(shard=shard) in " ".join(lines), (index, lines)
    assert f"{damaged}, record 1: the file is damaged here" in said
    assert "the largest instance id is 15, the last that label_divisor 16 allows" in _flat(said)
    assert "19 records in 2 files, 14 of them with a label" in _flat(said)
    assert re.search(r"car +1 +thing +13 +26 ", said)
    assert re.search(r"training cannot start: \d+ errors, \d+ warnings\n$", said)

    page = (tmp_path / "page" / "check.html").read_text()
    for text in ("training cannot start", "200 pixels of class 3", "record 1 (beyond)", "largest instance id"):
        assert text in page
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert pictures
    for picture in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (540, 180)
    # A page that a phone can show, and that can be read aloud.
    assert '<meta name="viewport" content="width=device-width' in page and '<html lang="en">' in page
    described = re.findall(r"<img [^>]*alt=\"([^\"]+)\"", page)
    assert len(described) == page.count("<img") == len(pictures)
    tinted = "to its right the same image, tinted by its label"
    assert f"beyond; {tinted}: car, road, class id 3, which does not exist" in described


@pytest.mark.parametrize("cut", [1, 8, 11, 12, 40])
def test_a_file_that_ends_soon_after_a_record_is_damaged(tmp_path, descriptor, capsys, cut):
    _write(tmp_path / "all", [_record("a"), _record("b")])
    _write(tmp_path / "one", [_record("a")])
    content = (tmp_path / "all").read_bytes()
    (tmp_path / "cut").write_bytes(content[: (tmp_path / "one").stat().st_size + cut])
    status, said = _check(capsys, "--dataset", descriptor, "--file_pattern", tmp_path / "cut")
    assert status == 1
    assert re.search(r"cut, record 1: the file is (cut|damaged) here", said)


def test_training_can_start_where_nothing_is_wrong(tmp_path, descriptor, capsys):
    _write(tmp_path / "good.tfrecord", [_record(f"image{n}", _label(17, 18, 32, 64, 0, 16)) for n in range(40)])
    status, said = _check(capsys, "--dataset", descriptor, "--file_pattern", tmp_path / "good*")
    assert status == 0
    assert "training can start: no errors, 0 warnings in 40 records" in said
    assert "16.7 % of the pixels are void, 16.7 % crowd; an image has 2 to 2 things (2.0 on average)" in _flat(said)
    assert re.search(r"car +1 +thing +40 +120 +50.0 %", said)
    assert re.search(r"sea +4 +stuff +40 +40 +16.7 %", said)


def test_few_large_records_wait_at_a_time_and_none_is_lost(tmp_path, descriptor, capsys, monkeypatch):
    _write(tmp_path / "a.tfrecord", [_record(f"image{n}") for n in range(12)])
    arguments = ["--dataset", descriptor, "--file_pattern", tmp_path / "a*"]
    expected = _check(capsys, *arguments)
    for at_once in (0, 2 * len(_record("image"))):
        monkeypatch.setattr(scan, "_WAITING_BYTES", at_once)
        assert _check(capsys, *arguments) == expected
    assert "12 records in 1 file" in expected[1]


def test_labels_of_another_divisor_and_absent_classes_are_told(tmp_path, descriptor, capsys):
    _write(tmp_path / "a.tfrecord", [_record(f"image{n}", _label(257, 258, 512)) for n in range(12)])
    status, said = _check(capsys, "--dataset", descriptor, "--file_pattern", tmp_path / "a*")
    assert status == 1
    assert "the descriptor has label_divisor 16, which some labels do not fit; all of them fit 256" in _flat(said)
    assert "no image has 'car', 'road', 'sea'" in said
    assert "... and 19 more of this kind" in said


def test_a_config_is_checked_with_its_limits(tmp_path, descriptor, configs, capsys):
    assert load_dataset(descriptor).num_classes == 5
    train = _write(tmp_path / "train.tfrecord", [_record("same"), _record("other")])
    _write(tmp_path / "val.tfrecord", [_record("same")])
    settings = [
        f"train_dataset_options.dataset={descriptor}",
        f"eval_dataset_options.dataset={descriptor}",
        f"train_dataset_options.file_pattern={train}",
        f"eval_dataset_options.file_pattern={tmp_path}/val.tfrecord",
        "train_dataset_options.max_thing_id=1",
        "model_options.max_deeplab.auxiliary_semantic_head.output_channels=5",
        "model_options.max_deeplab.num_mask_slots=2",
    ]
    overrides = [f"--override={setting}" for setting in settings]
    status, said = _check(capsys, "--config_file", configs / "shapes" / "kmax_tiny.textproto", *overrides)
    assert status == 1
    assert f"{train}, record 0 (same): 2 things, but max_thing_id of the config is 1" in said
    assert "3 segments (2 things and 1 stuff class), but the model has 2 mask slots" in said
    assert "1 image has a name that train has too, e.g. 'same'" in said


def test_the_page_goes_to_remote_storage_too(tmp_path, descriptor, capsys):
    _write(tmp_path / "good.tfrecord", [_record("good")])
    page = "ram://page/check.html"
    _check(capsys, "--dataset", descriptor, "--file_pattern", tmp_path / "good*", "--html", page)
    assert files.read_text(page).startswith("<!DOCTYPE html>")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/check.html: cannot write the page: Not a directory"):
        check_dataset.tell([], str(tmp_path / "file" / "check.html"), print)


@pytest.mark.parametrize("image_format", ["gif", "bmp"])
def test_formats_that_training_does_not_read_are_named(image_format):
    encoded = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(encoded, format=image_format)
    record = _record("other", edit=_set(schema.IMAGE_ENCODED, encoded.getvalue()))
    (fault,) = read_content(record, has_labels=True).faults
    assert fault == (FaultKind.BROKEN_IMAGE, f"expected a JPEG or PNG image, got {image_format.upper()}")
    _require_refused_by_training(record)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_more_pixels_than_training_reads_is_named_before_it_is_decoded():
    # Only the header is large: 2 pixels more than 2**27, which Pillow itself would read.
    height, width = 2**26 + 1, 2
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data)) for data in (header, b"IDAT")
    ]
    record = _record("large", edit=_set(schema.IMAGE_ENCODED, PNG_START + b"".join(chunks)))
    for key, value in ((schema.IMAGE_HEIGHT, height), (schema.IMAGE_WIDTH, width)):
        example = tf.train.Example.FromString(record)
        example.features.feature[key].int64_list.value[0] = value
        record = example.SerializeToString()
    (fault,) = read_content(record, has_labels=False).faults
    assert fault == (FaultKind.BROKEN_IMAGE, "expected an image of 1 to 134,217,728 pixels, got 67108865 x 2")
    _require_refused_by_training(record)


def _require_refused_by_training(record):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_record(tf.constant(record), has_labels=False)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_is_too_large_for_pillow_is_a_fault_unless_pillow_has_no_limit(monkeypatch):
    record = _record("large")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 2 - 1)
    (fault,) = read_content(record, has_labels=True).faults
    assert "its image cannot be read: Image size (600 pixels) exceeds limit of 598 pixels" in fault.text
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    content = read_content(record, has_labels=True)
    assert content.image.shape == (HEIGHT, WIDTH, 3) and not content.faults


def test_a_shard_that_was_cut_where_a_record_ends_is_noticed_by_its_manifest(tmp_path, descriptor, capsys):
    """As after a copy that was broken off; the pattern of the documentation finds the manifest, too."""
    shard = tmp_path / "train-00000-of-00001.tfrecord"
    _write(shard, [_record(f"image{n}") for n in range(4)])
    entry = {"shards": [{"name": shard.name, "images": 4, "bytes": shard.stat().st_size}]}
    (tmp_path / "manifest.json").write_text(json.dumps({"splits": {"train": entry}}))
    arguments = ["--dataset", descriptor, "--file_pattern", tmp_path / "[tm]*"]
    assert "4 records in 1 file" in _check(capsys, *arguments)[1]
    os.truncate(shard, list(regions(str(shard)))[2].offset)
    status, said = _check(capsys, *arguments)
    assert status == 1
    assert "record 2: the file was cut or changed: expected" in _flat(said)
    assert "with 4 records as the manifest.json beside it says, got" in _flat(said)
    assert "bytes with 2 records" in _flat(said)


def test_a_missing_file_of_a_numbered_set_is_a_fault(tmp_path, descriptor, capsys):
    for number in (0, 2):
        _write(tmp_path / f"train-{number:05}-of-00003.tfrecord", [_record(f"image{number}")])
    status, said = _check(capsys, "--dataset", descriptor, "--file_pattern", tmp_path / "train-*")
    assert status == 1
    assert "missing files" in said
    assert "train-*-of-00003.tfrecord: expected 3 files, got 2 without train-00001-of-00003.tfrecord" in _flat(said)
    # What is there has been checked all the same.
    assert "2 records in 2 files" in said


def test_what_to_check_has_to_be_said(capsys):
    with pytest.raises(SystemExit, match="check-dataset: expected either --config_file"):
        command.main(["check-dataset", "--dataset", "own.json"])


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ((b"a_b", b"a_b.png"), FaultKind.SHARED_FILE),
        ((b"a/b.jpg", b"a//b"), FaultKind.SHARED_FILE),
        ((b"", b"."), FaultKind.SHARED_FILE),
        ((b"", b""), FaultKind.DUPLICATE_NAME),
        ((b"a/b", b"a/b"), FaultKind.DUPLICATE_NAME),
        ((b"clip.0002", b"clip.0004"), None),
        ((b"a.png", b"b/a.png"), None),
    ],
)
def test_names_that_meet_in_one_file_are_a_warning(tmp_path, descriptor, names, kind):
    records = [_record("name", edit=_set(schema.IMAGE_FILENAME, name)) for name in names]
    shard = _write(tmp_path / "a.tfrecord", records)
    report = scan.check_records("train", load_dataset(descriptor), [shard])
    shared = [f for f in report.faults if f.kind in (FaultKind.SHARED_FILE, FaultKind.DUPLICATE_NAME)]
    assert [fault.kind for fault in shared] == [kind] * (kind is not None)
    assert all(f"{shard}, record 1" in fault.text and f"{shard}, record 0" in fault.text for fault in shared)
    assert report.can_train


def test_records_without_a_name_share_none(tmp_path, descriptor):
    shard = _write(tmp_path / "a.tfrecord", [b"\xff" * 9, b"\xff" * 9])
    report = scan.check_records("train", load_dataset(descriptor), [shard])
    assert {fault.kind for fault in report.faults} == {FaultKind.BROKEN_RECORD}


def test_names_of_records_are_shown_escaped(tmp_path, descriptor, capsys):
    record = _record("void", _label(0), edit=_set(schema.IMAGE_FILENAME, b"a\x1b[2J\nb"))
    shard = _write(tmp_path / "a.tfrecord", [record])
    _, said = _check(capsys, "--dataset", descriptor, "--file_pattern", shard)
    assert "record 0 (a\\x1b[2J\\nb): every pixel is void" in _flat(said) and "\x1b" not in said
