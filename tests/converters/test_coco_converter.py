"""The COCO converter: what it writes equals DeepLab2's records, and broken input stops it without a trace."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.converters.coco import convert_coco
from deeplab2_kmax.errors import DataError

REPOSITORY = pathlib.Path(__file__).parents[2]
SAMPLE = REPOSITORY.parent / "shared" / "coco_sample"
CLASS_OF = {1: 1, 18: 17, 200: 133}


@pytest.mark.skipif(not SAMPLE.exists(), reason="needs the real images of ../shared/coco_sample")
def test_real_images_equal_deeplab2s_records(tmp_path, examples, label_of):
    golden = json.loads((REPOSITORY / "tests" / "golden" / "coco_sample_tfrecord.json").read_text())
    paths = convert_coco(SAMPLE, tmp_path, num_processes=1)
    assert sorted(p.name for p in tmp_path.glob("*-*")) == [f"{s}-00000-of-00001.tfrecord" for s in ("train", "val")]
    for path in paths:
        written = examples([path])
        assert sorted(written) == sorted(golden)
        for stem, expected in golden.items():
            feature = written[stem].features.feature
            assert {key: f.WhichOneof("kind") for key, f in feature.items()} == expected["keys"]
            for key, value in expected["scalars"].items():
                kind = expected["keys"][key]
                assert list(getattr(feature[key], kind).value) == [value.encode() if kind == "bytes_list" else value]
            image_path = SAMPLE / "train2017" / f"{stem}.jpg"
            assert feature["image/encoded"].bytes_list.value[0] == image_path.read_bytes()
            assert np.unique(label_of(written[stem])).tolist() == expected["panoptic_ids"]
            raw = feature["image/segmentation/class/encoded"].bytes_list.value[0]
            assert hashlib.sha256(raw).hexdigest() == expected["label_sha256"]


@pytest.mark.parametrize("treat_crowd_as_ignore", [True, False])
def test_labels_of_things_stuff_crowd_and_void(coco, tmp_path, examples, label_of, treat_crowd_as_ignore):
    paths = convert_coco(coco.root, tmp_path / "out", treat_crowd_as_ignore, num_shards=5, num_processes=1)
    # Never more shards than images.
    names = ["train-00000-of-00002.tfrecord", "train-00001-of-00002.tfrecord", "val-00000-of-00001.tfrecord"]
    assert [os.path.basename(p) for p in paths] == names
    assert sorted(os.listdir(tmp_path / "out")) == ["manifest.json", *names]
    written = examples(paths)
    assert list(written) == ["a", "b", "c"]
    expected = np.zeros((24, 32), np.int32)
    expected[:8] = 133 * 256
    expected[10:20, :9] = 256 + 1
    expected[10:20, 12:30] = 256 + 2
    np.testing.assert_array_equal(label_of(written["a"]), expected)
    crowd = 0 if treat_crowd_as_ignore else 17 * 256
    # The crowd does not count: the one instance of the class has number 1.
    assert set(np.unique(label_of(written["b"]))) == {0, crowd, 17 * 256 + 1}
    assert label_of(written["b"])[12, 3] == crowd


def test_several_processes_write_the_same_records(coco, tmp_path):
    one = convert_coco(coco.root, tmp_path / "one", num_shards=2, num_processes=1)
    two = convert_coco(coco.root, tmp_path / "two", num_shards=2, num_processes=2)
    assert [pathlib.Path(p).read_bytes() for p in one] == [pathlib.Path(p).read_bytes() for p in two]
    assert (tmp_path / "one" / "manifest.json").read_text() == (tmp_path / "two" / "manifest.json").read_text()


def test_test_images_have_no_label(coco, tmp_path, examples):
    coco.add_image("test", "t")
    written = examples(convert_coco(coco.root, tmp_path / "out"))
    assert "image/segmentation/class/encoded" in written["c"].features.feature
    assert "image/segmentation/class/encoded" not in written["t"].features.feature


def _png(coco, split, stem, change):
    path = coco.png_path(split, stem)
    pixels = np.array(Image.open(path))
    Image.fromarray(change(pixels)).save(path)


def _segment(coco, position, **changes):
    coco.json["train"][0]["segments_info"][position].update(changes)
    coco.save()


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def _recolor(pixels):
    pixels[11, 1] = 77, 0, 0
    return pixels


def _one_row_more(pixels):
    return np.pad(pixels, ((0, 1), (0, 0), (0, 0)))


BREAKAGES = {
    "area": (lambda c: _segment(c, 1, area=89), r"a.png: segment 513: expected 89 pixels .* got 90"),
    "absent": (lambda c: c.json["train"][0]["segments_info"].pop() and c.save(), r"a.png: segment 4: 180 pixels"),
    "recolored": (lambda c: _png(c, "train", "a", _recolor), r"a.png: segment 513: expected 90 pixels .* got 89"),
    "category": (lambda c: _segment(c, 1, category_id=12), r"a.png: segment 513: .*category_id .*got 12"),
    "category text": (lambda c: _segment(c, 1, category_id="1"), r"a.png: segment 513: .*category_id .*got '1'"),
    "no object": (
        lambda c: c.json["train"][0]["segments_info"].append(7) or c.save(),
        r"a.png: entry 3 of segments_info: expected an object, got 7",
    ),
    "twice": (lambda c: _segment(c, 1, id=4), r"a.png: segment 4: .*twice"),
    "zero": (lambda c: _segment(c, 1, id=0), r"a.png: segment 0: .*unlabelled"),
    "stuff crowd": (lambda c: _segment(c, 0, iscrowd=1), r"a.png: segment 70000: .*rug-merged"),
    "no png": (lambda c: c.png_path("val", "c").unlink(), r"c.png: no such file"),
    "grey png": (lambda c: _png(c, "val", "c", lambda p: p[..., 0]), r"c.png: expected an RGB PNG .*mode L"),
    "png cut": (lambda c: _truncate(c.png_path("val", "c")), r"c.png: expected a picture .*, got an empty file"),
    "other size": (
        lambda c: _png(c, "train", "b", lambda p: np.pad(p, ((0, 1), (0, 0), (0, 0)))),
        r"b.jpg: .*32 x 24 pixels, got one of 32 x 25",
    ),
    "jpeg cut": (lambda c: _truncate(c.root / "train2017" / "b.jpg"), r"b.jpg: .*expected a whole picture"),
    "no jpeg": (
        lambda c: (c.root / "train2017" / "b.jpg").write_text("text"),
        r"b.jpg: .*got 4 bytes of another kind",
    ),
    "unlisted": (lambda c: c.json["train"].pop() and c.save(), r"b.jpg: expected an annotation"),
    "json cut": (
        lambda c: _truncate(c.root / "annotations" / "panoptic_val2017.json"),
        r"val2017.json: expected annotations, got an empty",
    ),
    "other json": (
        lambda c: (c.root / "annotations" / "panoptic_val2017.json").write_text("[]"),
        r"val2017.json: expected a JSON object, got a list",
    ),
    "no json": (lambda c: (c.root / "annotations" / "panoptic_val2017.json").unlink(), r"val2017.json: cannot read"),
    "no images": (lambda c: (c.root / "val2017" / "c.jpg").unlink(), r"val2017: expected images"),
    "no split": (lambda c: c.root.rename(c.root.parent / "moved"), r"coco_root: .*train2017, val2017, test2017"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_broken_input_is_named_and_nothing_is_published(coco, tmp_path, name):
    breakage, reason = BREAKAGES[name]
    breakage(coco)
    with pytest.raises(DataError, match=reason):
        convert_coco(coco.root, tmp_path / "new" / "out", num_processes=1)
    # The shard of the other split may be finished and kept.
    assert not (tmp_path / "new").exists() or os.listdir(tmp_path / "new" / "out") == [".unfinished"]


def test_an_error_in_another_process_arrives_and_leaves_older_files(coco, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    _truncate(coco.root / "train2017" / "b.jpg")
    with pytest.raises(DataError, match=r"b.jpg"):
        convert_coco(coco.root, out, num_processes=2, num_shards=2)
    assert set(os.listdir(out)) <= {"notes.txt", ".unfinished"}
    assert (out / "notes.txt").read_text() == "mine"


def test_too_many_instances(coco, tmp_path):
    cells = [(i + 1, 1, 0, slice(i // 32, i // 32 + 1), slice(i % 32, i % 32 + 1)) for i in range(256)]
    coco.add("val", "d", cells)
    with pytest.raises(DataError, match="d.png: segment 256: expected at most 255 instances of 'person'"):
        convert_coco(coco.root, tmp_path / "out", num_processes=1)
    assert not list(tmp_path.glob("out/*.tfrecord"))


def test_shards_of_another_run_are_not_mixed(coco, tmp_path):
    convert_coco(coco.root, tmp_path, num_shards=2)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.tfrecord")}
    with pytest.raises(DataError, match="train-00000-of-00002.tfrecord: expected no shards of another run"):
        convert_coco(coco.root, tmp_path, num_shards=1)
    convert_coco(coco.root, tmp_path, num_shards=2)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.tfrecord")} == before


def test_command_line_says_in_one_line_that_the_output_cannot_be_written(coco, tmp_path):
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "deeplab2_kmax.converters.coco", f"--coco_root={coco.root}"]
    command.append(f"--output_dir={tmp_path / 'file' / 'out'}")
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == f"error: output_dir: cannot write to {tmp_path}/file/out: Not a directory"
    assert "Traceback" not in run.stderr
