"""Bad data: each kind stops with a DataError that names where it is."""

import contextlib
import gc
import os
import weakref

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.input_pipeline import build_dataset, data_errors
from helpers.pipeline_records import changed, labels, options, pixels, png, record, write


def test_no_file_matches(tmp_path):
    pattern = str(tmp_path / "none-*.tfrecord")
    with pytest.raises(DataError) as error:
        build_dataset(options(pattern), is_training=True)
    for part in (pattern, os.getcwd(), "deeplab2_kmax.converters.shapes --output_dir"):
        assert part in str(error.value)


def test_only_empty_files(tmp_path):
    paths = [write(tmp_path / f"{i}.tfrecord", []) for i in range(2)]
    with pytest.raises(DataError, match=r"matches 2 files without any records.*0 bytes.*converters\.coco"):
        build_dataset(options(paths, dataset="coco_panoptic"), is_training=True)


def jpeg_cut_short():
    whole = tf.io.encode_jpeg(pixels(12, 16), quality=95).numpy()
    return changed(record(), IMAGE_ENCODED=whole[: len(whole) // 2], IMAGE_FORMAT=b"jpeg")


BAD_RECORDS = {
    "JPEG cut short": (jpeg_cut_short, "Invalid JPEG"),
    "PNG cut short": (lambda: changed(record(), IMAGE_ENCODED=png(pixels(12, 16))[:-30]), "Invalid PNG"),
    "no image at all": (
        lambda: changed(record(), IMAGE_ENCODED=b"hello"),
        "expected a JPEG or PNG image, got 5 other bytes",
    ),
    "image of another size": (
        lambda: changed(record(), IMAGE_ENCODED=png(pixels(16, 12))),
        r"image of height, width 16 12 but the record says 12 16",
    ),
    "label of another size": (
        lambda: changed(record(), LABEL_ENCODED=labels(11, 16).tobytes()),
        r"label of another size than the image.*12 16 has 768 bytes, got 704",
    ),
    "label twice as high": (
        lambda: changed(record(), LABEL_ENCODED=labels(24, 16).tobytes()),
        r"label of another size than the image.*12 16 has 768 bytes, got 1536",
    ),
    "label cut within a number": (
        lambda: changed(record(), LABEL_ENCODED=labels(12, 16).tobytes()[:-3]),
        "label of another size",
    ),
    "label as PNG": (lambda: changed(record(), LABEL_FORMAT=b"png"), "format raw, got png"),
    "label of a format unknown": (lambda: changed(record(), LABEL_FORMAT=b"text"), "format raw, got text"),
    "class outside the list": (
        lambda: record(label=np.full((12, 16), 200 * 256 + 1, np.int32)),
        r"id 51201 has class 200 which is not in the class list of shapes \(ids 1..8, ignore 0",
    ),
    "instance of stuff": (
        lambda: record(label=np.full((12, 16), 5 * 256 + 3, np.int32)),
        r"instance number to class 5 of shapes, which is stuff",
    ),
    "too many things": (
        lambda: record(label=np.arange(257, 257 + 12 * 16).reshape(12, 16).astype(np.int32)),
        "192 thing instances, more than max_thing_id 8",
    ),
    "no tf.train.Example": (lambda: b"\x99 what is this", "parse example input"),
    "key missing": (lambda: tf.train.Example().SerializeToString(), "image/.* is required"),
}


@pytest.mark.parametrize(
    ("kind", "is_training"),
    [*((kind, False) for kind in BAD_RECORDS), ("JPEG cut short", True), ("too many things", True)],
)
def test_bad_record_is_named(tmp_path, kind, is_training):
    make, message = BAD_RECORDS[kind]
    bad = make()
    if kind not in ("no tf.train.Example", "key missing"):
        bad = changed(bad, IMAGE_FILENAME=b"culprit")
        message = rf"\(culprit\): .*{message}"
    write(tmp_path / "a.tfrecord", [record() for _ in range(3)])
    shard = write(tmp_path / "b.tfrecord", [record(), record(), bad, record()])
    checked = options(str(tmp_path / "*.tfrecord"), batch_size=2, crop_size=[30, 30])
    with pytest.raises(DataError, match=message) as error, data_errors(checked, is_training):
        for _ in build_dataset(checked, is_training).take(20):
            pass
    assert f"{shard}, record 2" in str(error.value)
    assert "\n" not in str(error.value) and "{{" not in str(error.value)


def test_file_that_is_no_tfrecord(tmp_path):
    path = tmp_path / "notes.tfrecord"
    path.write_text("these are not the records you are looking for")
    with (
        pytest.raises(DataError, match=r"notes.tfrecord, record 0: .*corrupted record"),
        data_errors(options(str(path)), False),
    ):
        list(build_dataset(options(str(path)), is_training=False))


def test_shard_cut_short(tmp_path):
    path = write(tmp_path / "a.tfrecord", [record(), record()])
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 100)
    with pytest.raises(DataError, match=r"a.tfrecord, record 1: .*truncated"), data_errors(options(path), False):
        list(build_dataset(options(path), is_training=False))


def test_named_from_within_a_distributed_loop(tmp_path):
    checked = options(write(tmp_path / "a.tfrecord", [record(), jpeg_cut_short()]), batch_size=2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    dataset = strategy.distribute_datasets_from_function(lambda context: build_dataset(checked, True, context))

    @tf.function
    def loop(iterator):
        for _ in tf.range(3):
            next(iterator)

    with pytest.raises(DataError, match="a.tfrecord, record 1.*Invalid JPEG"), data_errors(checked, is_training=True):
        loop(iter(dataset))


def test_errors_from_elsewhere_pass(tmp_path):
    checked = options(write(tmp_path / "a.tfrecord", [record()]))
    with pytest.raises(tf.errors.InvalidArgumentError), data_errors(checked, is_training=False):
        tf.reshape(tf.zeros([3]), [2])


def test_a_named_record_leaves_nothing_behind(tmp_path):
    """Data set and threads are gone with the error, not only once Python looks for objects that refer to each other."""

    class InUse:
        """Stands for what the caller has."""

    checked = options(write(tmp_path / "a.tfrecord", [changed(record(), LABEL_FORMAT=b"png")]))
    seen = []

    def read():
        in_use = InUse()
        seen.append(weakref.ref(in_use))
        with data_errors(checked, is_training=False):
            for _ in build_dataset(checked, is_training=False):
                pass

    gc.disable()
    try:
        with contextlib.suppress(DataError):
            read()
        assert seen[0]() is None
    finally:
        gc.enable()
