"""COCO's panoptic format with categories of one's own."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.converters.coco_panoptic import convert_coco_panoptic, descriptor_of_categories
from deeplab2_kmax.datasets import read_descriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records import schema

CATEGORIES = [
    {"id": 90, "name": "soil", "isthing": 0},
    {"id": 7, "name": "apple", "isthing": 1, "color": [200, 10, 20], "supercategory": "fruit"},
]


@pytest.fixture
def tree(tmp_path):
    """One 4 x 6 picture: two apples on soil, the last column unlabelled; returns convert's arguments."""
    for folder in ("photos", "pngs"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (4, 6, 3), np.uint8)).save(tmp_path / "photos/a.png")
    ids = np.full((4, 6), 70000)
    ids[0, :2], ids[2, 2:4], ids[:, 5] = 258, 3, 0
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(
        tmp_path / "pngs/a.png"
    )
    segments = [
        {"id": 258, "category_id": 7, "area": 2, "iscrowd": 0},
        {"id": 70000, "category_id": 90, "area": 16, "iscrowd": 0},
        {"id": 3, "category_id": 7, "area": 2, "iscrowd": 0},
    ]
    annotations = {
        "categories": CATEGORIES,
        "annotations": [{"file_name": "a.png", "image_id": 1, "segments_info": segments}],
    }
    (tmp_path / "own.json").write_text(json.dumps(annotations))
    return {
        "dataset": str(tmp_path / "new" / "fruit.json"),
        "image_folder": str(tmp_path / "photos"),
        "annotations": str(tmp_path / "own.json"),
        "png_folder": str(tmp_path / "pngs"),
        "output_dir": str(tmp_path / "records"),
        "num_processes": 1,
    }


def test_descriptor_is_written_from_the_categories_and_used(tree, capsys):
    (path,) = convert_coco_panoptic(split="test", **tree)
    assert "fruit.json: written from the categories of" in capsys.readouterr().out
    assert path.endswith("test-00000-of-00001.tfrecord")
    descriptor = read_descriptor(tree["dataset"])
    assert (descriptor.name, descriptor.num_classes, descriptor.label_divisor) == ("fruit", 3, 1000)
    assert [(c.id, c.source_id, c.name, c.is_thing) for c in descriptor.classes] == [
        (1, 7, "apple", True),
        (2, 90, "soil", False),
    ]
    assert descriptor.by_id[1].color == (200, 10, 20)
    (record,) = tf.data.TFRecordDataset(path)
    features = tf.io.parse_single_example(record, schema.feature_spec())
    expected = np.full((4, 6), 2000)
    expected[0, :2], expected[2, 2:4], expected[:, 5] = 1001, 1002, 0
    label = np.frombuffer(features[schema.LABEL_ENCODED].numpy(), "<i4").reshape(4, 6)
    np.testing.assert_array_equal(label, expected)
    assert features[schema.IMAGE_FORMAT] == b"png"


def test_a_descriptor_that_is_there_is_used_as_it_is(tree, tmp_path):
    entries = [{"id": 0, "source_id": 90, "is_thing": False, "name": "soil"}]
    content = {"name": "own", "ignore_label": 255, "label_divisor": 256, "classes": entries}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="a.png: segment 258: expected the category_id of a class of own, got 7"):
        convert_coco_panoptic(**{**tree, "dataset": str(path)})
    assert json.loads(path.read_text()) == content


def test_pictures_of_another_split_are_left_out(tree, tmp_path, capsys):
    (tmp_path / "photos/b.png").write_bytes((tmp_path / "photos/a.png").read_bytes())
    (path,) = convert_coco_panoptic(**tree)
    assert "1 of 2 images left out" in capsys.readouterr().out
    assert len(list(tf.data.TFRecordDataset(path))) == 1
    (tmp_path / "photos/a.png").unlink()
    with pytest.raises(
        DataError, match="own.json: expected annotations of images such as .*b.png, got 1 annotation, .*of 'a'"
    ):
        convert_coco_panoptic(**tree)


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda d: d.pop("categories"), "KeyError.'categories'"),
        (lambda d: d["categories"][0].pop("isthing"), "KeyError.'isthing'"),
        (lambda d: d["categories"][0].update(id=7), "own source_id, got more than one with 7"),
    ],
)
def test_categories_that_make_no_descriptor_are_refused(tree, change, reason):
    with open(tree["annotations"]) as file:
        content = json.load(file)
    change(content)
    with open(tree["annotations"], "w") as file:
        json.dump(content, file)
    with pytest.raises(DataError, match=f"own.json: expected `categories`, .*{reason}"):
        descriptor_of_categories("own", tree["annotations"])
