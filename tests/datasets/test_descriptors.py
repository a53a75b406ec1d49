"""Data set descriptors: the built-in ones hold the known facts, and broken ones are refused with a reason."""

import dataclasses
import json

import pytest

from deeplab2_kmax import files
from deeplab2_kmax.datasets import (
    DatasetDescriptor,
    SegmentClass,
    known_datasets,
    load_dataset,
    read_descriptor,
    write_descriptor,
)
from deeplab2_kmax.datasets.loader import distinct_color
from deeplab2_kmax.errors import ConfigError

# name: (num_classes, ignore label, divisor, things, stuff), as DeepLab2 has them.
FACTS = {
    "coco_panoptic": (134, 0, 256, 80, 53),
    "cityscapes_panoptic": (19, 255, 1000, 8, 11),
    "ade20k_panoptic": (151, 0, 1000, 100, 50),
    "shapes": (9, 0, 256, 4, 4),
}


@pytest.mark.parametrize("name", sorted(FACTS))
def test_built_in_descriptors_hold_the_facts(name):
    d = load_dataset(name)
    counts = (d.num_classes, d.ignore_label, d.label_divisor, len(d.thing_class_ids), len(d.stuff_class_ids))
    assert counts == FACTS[name]
    assert d.name == name
    assert d.void_id == d.ignore_label * d.label_divisor
    assert d.index_to_class_id == d.thing_class_ids + d.stuff_class_ids
    assert list(d.by_id) == sorted(d.by_id)


def test_a_path_may_be_of_pathlib(tmp_path):
    with pytest.raises(ConfigError, match="none.json"):
        load_dataset(tmp_path / "none.json")
    path = tmp_path / "mine.json"
    write_descriptor(path, load_dataset("shapes"))
    assert load_dataset(path) == load_dataset("shapes")


def test_every_file_is_tested():
    assert set(known_datasets()) == set(FACTS)


def test_coco_ids_are_contiguous_in_the_order_of_the_categories():
    d = load_dataset("coco_panoptic")
    assert d.thing_class_ids == tuple(range(1, 81))
    assert d.stuff_class_ids == tuple(range(81, 134))
    assert [c.source_id for c in d.classes] == sorted(d.by_source_id)
    assert (d.by_source_id[90].id, d.by_source_id[92].id, d.by_source_id[200].id) == (80, 81, 133)
    assert (d.by_id[1].name, d.by_id[1].color, d.by_id[133].name) == ("person", (220, 20, 60), "rug-merged")


def test_cityscapes_things_come_last_and_ids_are_train_ids():
    d = load_dataset("cityscapes_panoptic")
    assert d.thing_class_ids == tuple(range(11, 19))
    assert d.index_to_class_id[:2] == (11, 12) and d.index_to_class_id[-1] == 10
    assert (d.by_source_id[33].name, d.by_source_id[33].id) == ("bicycle", 18)


def test_ade20k_source_ids_are_one_less():
    d = load_dataset("ade20k_panoptic")
    assert all(c.source_id == c.id - 1 for c in d.classes)
    assert (d.by_id[8].name, d.by_id[8].is_thing, d.by_id[150].name) == ("bed", True, "flag")


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="ade20k_panoptic, cityscapes_panoptic, coco_panoptic, shapes.*'coco'"):
        load_dataset("coco")


def _descriptor(**changes):
    classes = (SegmentClass(2, "road", False, (1, 2, 3), 7), SegmentClass(1, "car", True, (4, 5, 6), 9))
    fields = {"name": "own", "classes": classes, "num_classes": 3, "ignore_label": 0, "label_divisor": 256}
    return DatasetDescriptor(**{**fields, **changes})


def _changed_class(**changes):
    return (_descriptor().classes[0], dataclasses.replace(_descriptor().classes[1], **changes))


def test_classes_are_ordered_by_id():
    assert [c.id for c in _descriptor().classes] == [1, 2]


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"classes": ()}, "at least one class"),
        ({"classes": _changed_class(id=1)}, "own id, got more than one with 1"),
        ({"classes": _changed_class(source_id=9)}, "own source_id"),
        ({"classes": _changed_class(name="car")}, "own name"),
        ({"classes": _changed_class(color=(0, 0, 256))}, "'road'.*0..255"),
        ({"num_classes": 2}, "'road': expected an id from 0 to num_classes - 1 = 1, got 2"),
        ({"ignore_label": 2}, "no class, got 2"),
        ({"ignore_label": -1}, "ignore_label >= 0"),
        ({"label_divisor": 1}, "label_divisor >= 2"),
        ({"label_divisor": 2**30}, "int32"),
        ({"num_classes": 20_000}, "at most 10,000 as num_classes, got 20,000"),
        ({"classes": _changed_class(name="")}, "name of the class that is not empty"),
        ({"classes": _changed_class(name="two\nlines")}, "can be shown, got 'two.nlines'"),
    ],
)
def test_descriptors_that_make_no_sense_are_refused(changes, reason):
    with pytest.raises(ConfigError, match=f"'own'.*{reason}"):
        _descriptor(**changes)


def test_labels_may_use_all_of_an_int32_and_no_more():
    # The largest panoptic id is num_classes * label_divisor - 1: here 2**31 - 1, the largest int32, ...
    assert _descriptor(num_classes=4, label_divisor=2**29).label_divisor == 2**29
    # ... also where void, class 3 here, has the largest class id ...
    assert _descriptor(ignore_label=3, label_divisor=2**29).void_id == 3 * 2**29
    # ... and here 2**31, one too many.
    with pytest.raises(ConfigError, match="'own': labels up to 2 .*715827883 do not fit an int32"):
        _descriptor(num_classes=3, label_divisor=715827883)
    with pytest.raises(ConfigError, match="'own': labels up to 3 .* do not fit an int32"):
        _descriptor(ignore_label=3, label_divisor=2**29 + 1)


@pytest.mark.parametrize(
    "edit, reason",
    [
        (lambda d: d.pop("label_divisor"), "'label_divisor' is missing"),
        (lambda d: d.update(divisor=3), "'divisor' is unknown; expected name, .*classes$"),
        (lambda d: d.update(lable_divisor=d.pop("label_divisor")), "'lable_divisor' is .*did you mean 'label_divisor'"),
        (
            lambda d: d["classes"][1].update(isthing=d["classes"][1].pop("is_thing")),
            "entry 1 .*mean 'is_thing'",
        ),
        (lambda d: d.update(ignore_label="0"), "'ignore_label': expected a whole number, got '0'"),
        (lambda d: d["classes"][1].update(is_thing=1), "entry 1 of classes: field 'is_thing': expected true or false"),
        (lambda d: d["classes"][1].update(color=["red", 0, 0]), "whole numbers"),
        (lambda d: d["classes"][0].update(id=2), "own id"),
        (lambda d: d["classes"][1].update(color=[True, 0, 0]), "whole numbers"),
        (lambda d: d["classes"][1].update(color=[0.5, float("nan"), 0]), "whole numbers"),
        (
            lambda d: d["classes"][1].update(source_id=2**31),
            "'source_id': expected a number of 32 bits, got 2147",
        ),
        (lambda d: d.update(label_divisor=10**12), "'label_divisor': expected a number of 32 bits"),
        (lambda d: d.update(label_divisor=10**2000), "expected a number of 32 bits, got 10{96}[.]{3}$"),
        (lambda d: d.update(ignore_label=float("nan")), "'ignore_label': expected a whole number, got nan"),
        (lambda d: d.update(name="\ud800"), "name of the data set that is not empty and can be shown"),
    ],
)
def test_descriptor_files_name_file_and_field(tmp_path, edit, reason):
    content = json.loads(json.dumps(dataclasses.asdict(_descriptor())))
    edit(content)
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=f"own.json: .*{reason}"):
        read_descriptor(path)


def test_own_descriptor_file_is_read(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(dataclasses.asdict(_descriptor())))
    assert load_dataset(str(path)) == _descriptor()


@pytest.mark.parametrize(
    "text", [None, "{", "[]", "[" * 100_000, '{"a": ' * 100_000, "9" * 10_000, '{"name": "a", "name": "b"}']
)
def test_unreadable_descriptor_files(tmp_path, text):
    path = tmp_path / "own.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match="own.json") as error:
        read_descriptor(path)
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


def test_what_follows_from_other_fields_may_be_left_out(tmp_path):
    path = tmp_path / "own.json"
    entries = [{"id": 1, "is_thing": True, "name": "car"}, {"id": 2, "is_thing": False, "name": "road"}]
    path.write_text(json.dumps({"name": "own", "ignore_label": 0, "label_divisor": 256, "classes": entries}))
    d = read_descriptor(path)
    assert (d.num_classes, [c.source_id for c in d.classes]) == (3, [1, 2])
    assert d.classes[0].color != d.classes[1].color
    colors = [distinct_color(rank) for rank in range(200)]
    assert len(set(colors)) == 200 and all(0 <= channel <= 255 for color in colors for channel in color)


@pytest.mark.parametrize("folder", ["local", "ram://datasets"])
def test_written_descriptors_are_read_back(tmp_path, folder):
    path = files.join(tmp_path if folder == "local" else folder, "new", "own.json")
    with pytest.raises(ConfigError, match="own.json: cannot read the data set descriptor"):
        read_descriptor(path)
    write_descriptor(path, _descriptor())
    assert read_descriptor(path) == load_dataset(path) == _descriptor()


def test_a_descriptor_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/own.json: cannot write the data set descriptor: Not a directory"):
        write_descriptor(tmp_path / "file" / "own.json", _descriptor())


def test_changed_files_are_read_anew_and_relative_paths_start_at_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"own.json: .*No such file.*working directory {tmp_path}"):
        load_dataset("own.json")
    for divisor in (256, 1000):
        write_descriptor("own.json", _descriptor(label_divisor=divisor))
        assert load_dataset("own.json").label_divisor == divisor


def test_a_byte_order_mark_is_passed_over_and_broken_json_is_placed(tmp_path):
    classes = [{"id": 1, "name": "a", "is_thing": True}]
    text = json.dumps({"name": "own", "ignore_label": 0, "label_divisor": 9, "classes": classes})
    path = tmp_path / "own.json"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_descriptor(path).name == "own"
    path.write_text(text[:-1] + ",}")
    with pytest.raises(ConfigError, match="descriptor in JSON, but it is cut off or broken at line 1, column"):
        read_descriptor(path)
    path.write_bytes(text.encode().replace(b"own", b"\xf6wn"))
    with pytest.raises(ConfigError, match="descriptor in JSON, but byte 10 is not UTF-8"):
        read_descriptor(path)
