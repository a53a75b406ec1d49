import json

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.converters.importing.classes import NamedClass
from deeplab2_kmax.converters.importing.conversion import TURNED, Export, ImportRules, Shards, write_records
from deeplab2_kmax.converters.importing.painting import OVERLAPPING
from deeplab2_kmax.converters.importing.regions import AnnotatedImage, Polygons, Region
from deeplab2_kmax.datasets import read_descriptor
from deeplab2_kmax.errors import DataError

CLASSES = [NamedClass("cat", None, (250, 0, 0), 7), NamedClass("mud", None), NamedClass("blur", None)]


def square(name, x, size):
    corners = [x, 0, x + size, 0, x + size, size, x, size]
    return Region(name, Polygons([corners]), f"export.json: {name}")


@pytest.fixture
def images(tmp_path):
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "b.png")
    regions = [square("cat", 0, 3), square("cat", 2, 2), square("mud", 4, 2), square("blur", 0, 1)]
    first = AnnotatedImage("a", str(tmp_path / "a.png"), regions, "export.json: a")
    return [first, AnnotatedImage("b", str(tmp_path / "b.png"), regions[:1], "export.json: b")]


def write(tmp_path, images, classes=CLASSES, dataset="own.json", splits=None, **rules):
    export = Export("tool", splits or {"train": images}, classes, {}, "export.json")
    shards = Shards(str(tmp_path / "records"), num_processes=1)
    return write_records(export, str(tmp_path / dataset), ImportRules(**rules), shards)


def test_descriptor_and_records_are_written_and_losses_are_told(tmp_path, images, capsys, examples, label_of):
    paths = write(tmp_path, images, stuff_classes=["mud"], void_classes=["blur"], background_class="floor")
    descriptor = read_descriptor(tmp_path / "own.json")
    assert [(c.name, c.is_thing, c.source_id) for c in descriptor.classes] == [
        ("cat", True, 7),
        ("mud", False, 2),
        ("floor", False, 3),
    ]
    assert descriptor.by_id[1].color == (250, 0, 0)
    label = label_of(examples(paths)["a"])
    np.testing.assert_array_equal(label[0], [0, 1001, 1002, 1002, 2000, 2000])
    assert (label[3] == 3000).all()
    out = capsys.readouterr().out
    assert f"train: {OVERLAPPING}: 3 in 1 of 2 images, most in a (3); manifest.json lists them by image" in out
    assert "taken for things, as the annotations do not say: cat;" in out
    manifest = json.loads((tmp_path / "records/manifest.json").read_text())
    assert manifest["splits"]["train"]["losses"] == {"a": {OVERLAPPING: 3}}
    assert manifest["splits"]["train"]["settings"]["overlaps"] == "later_on_top"


def test_an_existing_descriptor_is_used_by_name(tmp_path, images, examples, label_of):
    write(tmp_path, images[1:], CLASSES[::-1])
    before = (tmp_path / "own.json").read_text()
    paths = write(tmp_path, images[1:], CLASSES)
    assert label_of(examples(paths)["b"])[0, 0] == 3001  # cat came third
    assert (tmp_path / "own.json").read_text() == before
    with pytest.raises(DataError, match="export.json: the class 'cat' is not one of .*shapes, expected circle"):
        export = Export("tool", {"train": images}, CLASSES, {}, "export.json")
        write_records(export, "shapes", ImportRules(), Shards(str(tmp_path / "records")))


def test_kinds_that_contradict_the_descriptor_are_refused(tmp_path, images):
    write(tmp_path, images[1:], CLASSES)
    with pytest.raises(DataError, match="'cat' is stuff here, but a thing in .*own.json"):
        write(tmp_path, images[1:], [NamedClass("cat", False)])
    with pytest.raises(DataError, match="'cat' is stuff here, but a thing in"):
        write(tmp_path, images[1:], stuff_classes=["cat"])


@pytest.mark.parametrize(
    "rules, reason",
    [
        ({"stuff_classes": ["mut"]}, "stuff_classes: expected .* got 'mut'; did you mean 'mud'"),
        ({"void_classes": ["x"]}, "void_classes: expected names of classes of export.json .cat, mud, blur., got 'x'"),
        ({"overlaps": "largest"}, "overlaps: expected one of smaller_on_top, .* got 'largest'"),
    ],
)
def test_names_and_rules_that_nobody_knows_are_refused(tmp_path, images, rules, reason):
    with pytest.raises(DataError, match=reason):
        write(tmp_path, images, **rules)
    assert not (tmp_path / "own.json").exists()


def test_two_classes_of_one_name_and_a_background_that_is_a_thing_are_refused(tmp_path, images):
    with pytest.raises(DataError, match="export.json: cannot write .*own.json from its classes: .*own name"):
        write(tmp_path, images, [*CLASSES, NamedClass("cat")])
    write(tmp_path, images)
    with pytest.raises(DataError, match="expected a stuff class of .*own.json, of which it has none; got 'cat'"):
        write(tmp_path, images, background_class="cat")


def test_pictures_of_one_name_and_exports_without_pictures_are_refused(tmp_path, images):
    with pytest.raises(DataError, match="export.json: b: expected names of pictures that differ .* both 'a' in train"):
        write(tmp_path, [images[0], images[1]._replace(name="a")])
    with pytest.raises(DataError, match="export.json: expected at least one annotated picture, got none"):
        write(tmp_path, [], splits={"train": [], "val": []})


def test_errors_of_regions_name_picture_and_entry(tmp_path, images):
    broken = images[1]._replace(regions=[Region("cat", Polygons([[0, 0, 900, 0, 0, 3]]), "export.json: shapes[2]")])
    with pytest.raises(DataError, match=r"b.png: export.json: shapes\[2\]: expected points of the picture, 6 x 4 "):
        write(tmp_path, [broken])
    # So that the same command, with other --stuff_classes say, begins anew.
    assert not (tmp_path / "own.json").exists()


TURNS = [(3, (6, 4), True), (6, (4, 4), True), (6, (4, 6), False), (1, (6, 4), False)]


@pytest.mark.parametrize("orientation, size, told", TURNS)
def test_pictures_whose_turn_no_size_shows_are_counted(tmp_path, images, capsys, orientation, size, told):
    picture = Image.new("RGB", size)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "b.png", exif=exif)
    write(tmp_path, images[1:])
    assert (f"{TURNED}: 1 in 1 of 1 image" in capsys.readouterr().out) == told


@pytest.mark.parametrize("split", ["", "a/b", "../x", " train", "tr*in", "."])
def test_splits_that_no_file_can_be_named_by_are_refused(tmp_path, images, split):
    with pytest.raises(DataError, match="split: expected a name that files can have"):
        write(tmp_path, images, splits={split: images})
    assert not list(tmp_path.rglob("*.tfrecord"))


def test_one_picture_twice_is_called_that(tmp_path, images):
    with pytest.raises(DataError, match="export.json: a: expected each picture once in train, got .*a.png again"):
        write(tmp_path, [images[0], images[0]])
