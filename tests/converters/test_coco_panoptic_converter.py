"""COCO's panoptic format with categories of one's own."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax import files
from deeplab2_kmax.converters import coco_panoptic
from deeplab2_kmax.converters.coco_panoptic import convert_coco_panoptic
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
    assert "fruit.json: written, 2 classes" in capsys.readouterr().out
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
        (lambda d: d.pop("categories"), "expected `categories`, each with id, name and isthing, .*; got none"),
        (
            lambda d: d["categories"][0].pop("isthing"),
            r"categories\[0\]: expected the field isthing, .*'soil' lacks it",
        ),
        (
            lambda d: d["categories"][0].update(isthing=None),
            r"categories\[0\]: expected the field isthing, .* lacks it",
        ),
        (lambda d: d["categories"][0].update(isthing="0"), r'categories\[0\].isthing: expected 0, 1, .* got "0"'),
        (lambda d: d["categories"][0].update(isthing=0.5), r"categories\[0\].isthing: expected 0, 1, .* got 0.5"),
        (lambda d: d["categories"][0].update(id=7), r"categories\[1\].id: expected categories that differ, .* with 7"),
        (lambda d: d["categories"][0].update(name="apple"), r"categories\[1\].name: .* differ, .* with \"apple\""),
        (lambda d: d["categories"][0].update(id="7"), r'categories\[0\].id: expected a whole number, got "7"'),
        (lambda d: d["categories"][0].pop("name"), r"categories\[0\]: expected the field name, which is missing"),
        (lambda d: d["categories"].append(3), r"categories\[2\]: expected an object, got 3"),
        (lambda d: d.update(categories={}), "categories: expected a list, got {}"),
        (lambda d: d["categories"][1].update(color="red"), r'categories\[1\].color: expected a list, got "red"'),
        (
            lambda d: d["categories"][1].update(color=[1, 2]),
            "expected `categories` that make a descriptor, but .*color",
        ),
        (lambda d: d.pop("annotations"), "expected the field annotations, which is missing"),
        (lambda d: d["annotations"][0].pop("file_name"), r"annotations\[0\]: expected the field file_name, which is"),
        (
            lambda d: d["annotations"][0].update(segments_info=5),
            r"annotations\[0\].segments_info: expected a list, got 5",
        ),
    ],
)
def test_what_is_missing_or_of_another_type_is_refused_by_its_place(tree, change, reason):
    _changed(tree, change)
    with pytest.raises(DataError, match=f"own.json: .*{reason}|own.json: {reason}") as told:
        convert_coco_panoptic(**tree)
    assert "\n" not in str(told.value) and "Error" not in str(told.value)
    assert not pathlib.Path(tree["dataset"]).exists()


@pytest.mark.parametrize(
    "content, reason",
    [
        ("", "expected annotations, got an empty file"),
        ("[]", "expected a JSON object, got a list"),
        ('{"annotations": [', "expected JSON, but it is cut off or broken at line 1"),
        ('{"annotations": [], "annotations": []}', 'expected keys that differ in an object, got "annotations" twice'),
        ('{"annotations": [NaN]}', "expected finite numbers, got NaN"),
    ],
)
def test_files_that_hold_something_else_say_what_they_are(tree, content, reason):
    pathlib.Path(tree["annotations"]).write_text(content)
    with pytest.raises(DataError, match=f"own.json: {reason}"):
        convert_coco_panoptic(**tree)


def test_the_file_is_parsed_once(tree, monkeypatch):
    """COCO's own has 350 MB."""
    parsed = []
    load = coco_panoptic.load_json_object
    monkeypatch.setattr(coco_panoptic, "load_json_object", lambda path: parsed.append(path) or load(path))
    read = files.read_bytes
    monkeypatch.setattr(files, "read_bytes", lambda path: parsed.append(path) or read(path))
    convert_coco_panoptic(**tree)
    assert parsed.count(tree["annotations"]) == 2


def _changed(tree, change):
    """The content of the JSON file after a change, which is written."""
    content = json.loads(pathlib.Path(tree["annotations"]).read_text())
    change(content)
    pathlib.Path(tree["annotations"]).write_text(json.dumps(content))
    return content


def _label(paths):
    (record,) = tf.data.TFRecordDataset(paths)
    features = tf.io.parse_single_example(record, schema.feature_spec())
    return np.frombuffer(features[schema.LABEL_ENCODED].numpy(), "<i4").reshape(4, 6)


@pytest.fixture
def expected():
    label = np.full((4, 6), 2000)
    label[0, :2], label[2, 2:4], label[:, 5] = 1001, 1002, 0
    return label


def _segments(content):
    return content["annotations"][0]["segments_info"]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: [c.update(isthing=bool(c["isthing"])) for c in d["categories"]],
        lambda d: [c.update(isthing=float(c["isthing"])) for c in d["categories"]],
        lambda d: [s.update(id=float(s["id"]), category_id=float(s["category_id"])) for s in _segments(d)],
        lambda d: [s.pop("iscrowd") for s in _segments(d)],
        lambda d: [s.update(iscrowd=False) for s in _segments(d)],
        lambda d: [s.update(area=float(s["area"])) for s in _segments(d)],
        lambda d: [s.update(area=5) for s in _segments(d)],
    ],
)
def test_fields_that_mean_the_same_in_another_type(tree, change, expected):
    _changed(tree, change)
    np.testing.assert_array_equal(_label(convert_coco_panoptic(**tree)), expected)


def test_missing_areas_are_counted_from_the_png(tree, expected, capsys):
    """As panopticapi's own converter from two channels leaves them out."""
    _changed(tree, lambda d: [s.pop("area") for s in _segments(d)])
    np.testing.assert_array_equal(_label(convert_coco_panoptic(**tree)), expected)
    assert "own.json: 3 segments without area, which is counted from the PNGs" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda d: _segments(d)[0].update(iscrowd="0"), "a.png: segment 258: expected 0 or 1 as iscrowd .*got '0'"),
        (lambda d: _segments(d)[0].update(iscrowd=2), "a.png: segment 258: expected 0 or 1 as iscrowd .*got 2"),
        (lambda d: _segments(d)[0].update(category_id="7"), "whole number as category_id in the JSON, got '7'"),
        (lambda d: _segments(d)[0].update(category_id=True), "whole number as category_id in the JSON, got True"),
        (lambda d: _segments(d).append({"id": 12, "category_id": 7}), "segment 12: expected pixels .*got none"),
        (lambda d: _segments(d)[0].update(id=2**24), r"segment 16777216: expected an id from 1 to 16,777,215, .*color"),
        (lambda d: _segments(d)[0].update(id=-3), r"segment -3: expected an id from 1 to 16,777,215, .*got -3"),
        (
            lambda d: d.update(images=[{"id": 2, "file_name": "a.jpg"}]),
            r"annotations\[0\].image_id: expected the id of one of `images`, got 1 for a.png",
        ),
        (
            lambda d: d.update(images=[{"id": 1, "file_name": "a.jpg"}] * 2),
            r"images\[1\].id: expected ids that differ, got 1 twice",
        ),
    ],
)
def test_fields_without_a_sure_meaning_are_refused(tree, change, reason):
    _changed(tree, change)
    with pytest.raises(DataError, match=reason):
        convert_coco_panoptic(**tree)


@pytest.mark.parametrize(
    "picture, png",
    [("a.jpg", "a_GT.png"), ("train/a.jpg", "labels/a_GT.png"), ("train\\a.jpg", "deep\\er\\a_GT.png")],
)
def test_pictures_and_pngs_are_joined_by_image_id(tree, tmp_path, picture, png, expected):
    (tmp_path / "pngs/a.png").rename(tmp_path / "pngs/a_GT.png")

    def join(content):
        content["annotations"][0].update(file_name=png)
        content["images"] = [{"id": 3, "file_name": "b.jpg"}, {"id": 1, "file_name": picture}]

    _changed(tree, join)
    (path,) = convert_coco_panoptic(**tree)
    np.testing.assert_array_equal(_label(path), expected)
    (record,) = tf.data.TFRecordDataset(path)
    assert tf.io.parse_single_example(record, schema.feature_spec())[schema.IMAGE_FILENAME] == b"a"


def test_pictures_in_the_folders_that_the_json_names(tree, tmp_path, expected):
    for kind in ("photos", "pngs"):
        (tmp_path / kind / "x").mkdir()
        (tmp_path / kind / "a.png").rename(tmp_path / kind / "x" / "a.png")
    _changed(tree, lambda d: d.update(images=[{"id": 1, "file_name": "x/a.png"}]))
    _changed(tree, lambda d: d["annotations"][0].update(file_name="x/a.png"))
    np.testing.assert_array_equal(_label(convert_coco_panoptic(**tree)), expected)


def test_categories_that_another_file_numbers_anew_are_mapped_by_name(tree, expected, tmp_path, capsys):
    convert_coco_panoptic(**tree)

    def number_anew(content):
        new = {90: 7, 7: 3}
        for entry in content["categories"]:
            entry["id"] = new[entry["id"]]
        for segment in _segments(content):
            segment["category_id"] = new[segment["category_id"]]

    _changed(tree, number_anew)
    paths = convert_coco_panoptic(**{**tree, "split": "val", "output_dir": str(tmp_path / "val")})
    np.testing.assert_array_equal(_label(paths), expected)
    told = capsys.readouterr().out
    assert "categories are mapped by name to" in told and "soil is 7 here and 90 there; apple is 3 here" in told


def test_areas_that_differ_are_counted_for_the_split(tree, expected, capsys):
    _changed(tree, lambda d: [s.update(area=5) for s in _segments(d)[:2]])
    np.testing.assert_array_equal(_label(convert_coco_panoptic(**tree)), expected)
    told = [line for line in capsys.readouterr().out.splitlines() if "areas that differ" in line]
    expected_start = "train: areas that differ from the PNG, which counts: 2 in 1 of 1 image, most in a (2)"
    assert len(told) == 1 and told[0].startswith(expected_start)


@pytest.mark.parametrize("category, expected, got", [(0, 0, 1), (1, 1, 0)])
def test_a_second_file_that_makes_a_thing_of_stuff_is_refused(tree, category, expected, got):
    convert_coco_panoptic(**tree)
    _changed(tree, lambda d: d["categories"][category].update(isthing=got))
    name = CATEGORIES[category]["name"]
    with pytest.raises(
        DataError, match=rf"categories\[{category}\]: expected isthing {expected} for '{name}', .*{got}"
    ):
        convert_coco_panoptic(**{**tree, "split": "val"})


def test_a_second_file_need_not_say_what_is_a_thing(tree, expected):
    convert_coco_panoptic(**tree)
    _changed(tree, lambda d: [c.pop("isthing") for c in d["categories"]])
    np.testing.assert_array_equal(_label(convert_coco_panoptic(**{**tree, "split": "val"})), expected)


def test_categories_of_other_names_are_refused(tree):
    convert_coco_panoptic(**tree)
    _changed(tree, lambda d: d["categories"][0].update(name="road"))
    with pytest.raises(DataError, match="own.json: category 90 is 'road' here, but 'soil' in .*fruit.json"):
        convert_coco_panoptic(**{**tree, "split": "val"})
