"""The shapes data set: deterministic, labelled by the rules, and readable as ordinary records."""

import os

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.converters.shapes import FIRST_VAL_INDEX, convert_shapes, generate_shapes
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records import schema

SCENES = [generate_shapes(3, index, 65) for index in range(60)]


def things_of(label):
    ids = np.unique(label)
    return [i for i in ids if i // 256 in load_dataset("shapes").thing_class_ids and i % 256]


def test_scenes_depend_on_seed_and_index_alone():
    for index in (5, 2):
        for array, again in zip(SCENES[index], generate_shapes(3, index, 65)):
            np.testing.assert_array_equal(array, again)
    assert (generate_shapes(4, 2, 65)[0] != SCENES[2][0]).any()
    assert (SCENES[2][0] != SCENES[5][0]).any()


@pytest.mark.parametrize("size", [33, 64, 129])
def test_shapes_and_types(size):
    image, label = generate_shapes(0, 0, size)
    assert (image.shape, image.dtype, label.shape, label.dtype) == ((size, size, 3), np.uint8, (size, size), np.int32)


def test_labels_follow_the_rules():
    descriptor = load_dataset("shapes")
    seen = set()
    for _, label in SCENES:
        assert 2 <= len(things_of(label)) <= 6
        for panoptic_id in np.unique(label):
            class_id, instance = divmod(int(panoptic_id), descriptor.label_divisor)
            assert class_id == descriptor.ignore_label or class_id in descriptor.by_id
            assert instance == 0 or class_id in descriptor.thing_class_ids
            # Instances of a class are numbered without gaps.
            assert instance < 2 or panoptic_id - 1 in label
            seen.add((class_id, instance > 0))
    things, stuff = descriptor.thing_class_ids, descriptor.stuff_class_ids
    assert seen >= {(0, False)} | {(c, True) for c in things} | {(c, False) for c in stuff}
    assert any((c, False) in seen for c in things), "no crowd in 60 scenes"


def test_things_stay_visible():
    smallest = min((label == i).sum() for _, label in SCENES for i in things_of(label))
    # 60 % of a triangle of the smallest size with its center 0.7 radii from the image border.
    assert smallest >= 0.01 * 65**2


def test_records_can_be_read_and_splits_differ(tmp_path):
    paths = convert_shapes(tmp_path, num_train=3, num_val=2, size=33, seed=1, num_shards=2)
    names = [f"{split}-0000{i}-of-00002.tfrecord" for split in ("train", "val") for i in (0, 1)]
    assert [os.path.basename(p) for p in paths] == names
    assert sorted(os.listdir(tmp_path)) == ["manifest.json", *names]
    indices = [0, 1, 2, FIRST_VAL_INDEX, FIRST_VAL_INDEX + 1]
    records = list(tf.data.TFRecordDataset(paths))
    assert len(records) == len(indices)
    for record, index in zip(records, indices):
        parsed = tf.io.parse_single_example(record, schema.feature_spec())
        image, label = generate_shapes(1, index, 33)
        np.testing.assert_array_equal(tf.io.decode_image(parsed[schema.IMAGE_ENCODED]), image)
        raw = tf.io.decode_raw(parsed[schema.LABEL_ENCODED], tf.int32)
        np.testing.assert_array_equal(tf.reshape(raw, label.shape), label)
    assert parsed[schema.IMAGE_FILENAME].numpy() == b"shapes_val_000001"


def test_crowd_can_be_ignored(tmp_path):
    crowd_ids = [256, 512, 768, 1024]
    index, label = next((i, label) for i, (_, label) in enumerate(SCENES) if np.isin(label, crowd_ids).any())
    paths = convert_shapes(tmp_path, num_train=index + 1, num_val=0, size=65, seed=3, treat_crowd_as_ignore=True)
    record = list(tf.data.TFRecordDataset(paths))[index]
    raw = tf.io.parse_single_example(record, schema.feature_spec())[schema.LABEL_ENCODED]
    expected = np.where(np.isin(label, crowd_ids), 0, label)
    np.testing.assert_array_equal(np.frombuffer(raw.numpy(), np.int32).reshape(65, 65), expected)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"size": 16}, "at least 33"),
        ({"num_train": -1}, "num_train=-1"),
        ({"num_val": 10**20}, "num_val=10000"),
        ({"seed": -3}, "seed=-3"),
    ],
)
def test_numbers_out_of_range(tmp_path, arguments, reason):
    with pytest.raises(DataError, match=reason):
        convert_shapes(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_output_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="output_dir: cannot write to .*file/out: Not a directory"):
        convert_shapes(tmp_path / "file" / "out")
    with pytest.raises(DataError, match="output_dir: cannot write to .*file: Not a directory"):
        convert_shapes(tmp_path / "file")
