"""Projects of Supervisely."""

import base64
import io
import json
import shutil
import zlib

import numpy as np
import pytest
from converters.oracles import supervisely as oracle
from PIL import Image

from deeplab2_kmax.converters.importing.conversion import ImportRules, Shards
from deeplab2_kmax.converters.supervisely import convert_supervisely
from deeplab2_kmax.datasets import read_descriptor
from deeplab2_kmax.errors import DataError
from helpers.import_trials import assert_right_or_refused, labels_of_records, labels_of_scene, run_command
from helpers.imported import difference_of_maps
from helpers.mutations import damaged_text, mutated
from helpers.shapes_truth import DESCRIPTOR, STUFF, scenes

RULES = ImportRules()
ONE = [[4, 2], [11, 2], [11, 8], [4, 8]]
META = {
    "classes": [
        {"title": "cat", "shape": "any", "color": "#FF8000"},
        {"title": "mud", "shape": "polygon", "color": "#0a0B0c"},
        {"title": "dog", "shape": "bitmap", "color": "#00FF00"},
    ],
    "tags": [],
    "projectType": "images",
}


def polygon(title, exterior, interior=(), kind="polygon", **fields):
    points = {"exterior": exterior, "interior": list(interior)}
    return {"classTitle": title, "geometryType": kind, "points": points, "tags": [], **fields}


def bitmap(title, mask, kind="bitmap", **fields):
    """As the SDK writes it: a PNG with a palette whose first entry is transparent, or grey, in zlib, in base64."""
    rows, columns = np.nonzero(mask)
    top, left = int(rows.min()), int(columns.min())
    image = Image.fromarray(mask[top : rows.max() + 1, left : columns.max() + 1].astype(np.uint8))
    options = {}
    if kind == "bitmap":
        image.putpalette([0, 0, 0, 255, 255, 255])
        options = {"transparency": 0}
    stream = io.BytesIO()
    image.save(stream, format="png", **options)
    data = base64.b64encode(zlib.compress(stream.getvalue())).decode()
    return {"classTitle": title, "geometryType": kind, "bitmap": {"data": data, "origin": [left, top]}, **fields}


def save(folder, dataset, name, objects, height=20, width=24, **fields):
    for kind in ("ann", "img"):
        (folder / dataset / kind).mkdir(parents=True, exist_ok=True)
    content = {"size": {"height": height, "width": width}, "tags": [], "objects": objects, **fields}
    (folder / dataset / "ann" / f"{name}.png.json").write_text(json.dumps(content))
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(folder / dataset / "img" / f"{name}.png")
    return content


def save_meta(folder, **changes):
    (folder / "meta.json").write_text(json.dumps({**META, **changes}))


@pytest.fixture
def project(tmp_path):
    save_meta(tmp_path)
    return tmp_path


def convert(folder, rules=RULES, **arguments):
    dataset = str(folder / "own" / "descriptor.json")
    shards = Shards(str(folder / "records"), num_processes=1)
    return convert_supervisely(dataset, str(folder), shards, rules, **arguments), dataset


def labels(folder, *arguments, **options):
    return labels_of_records(*convert(folder, *arguments, **options))


def splits(folder):
    return sorted(path.name.split("-0")[0] for path in (folder / "records").glob("*.tfrecord"))


def test_scenes_come_back(tmp_path):
    """All of them, as bitmaps; crowds, which Supervisely does not know, as a class that is void."""
    truth = scenes()
    titles = [c.name for c in DESCRIPTOR.classes]
    save_meta(tmp_path, classes=[{"title": title, "shape": "bitmap"} for title in [*titles, "crowd"]])
    for scene in truth:
        objects = [bitmap("crowd" if s.is_crowd else s.class_name, s.mask) for s in scene.segments]
        save(tmp_path, "all", scene.name, objects, *scene.label.shape)
        scene.save(tmp_path / "all" / "img")
    found = labels(tmp_path, ImportRules(stuff_classes=STUFF, void_classes=["crowd"]))
    assert len(found) == 20
    for scene in truth:
        assert not difference_of_maps(*found[scene.name], *labels_of_scene(scene)), scene.name


def test_what_the_sdk_wrote_is_read_as_it_draws_it(tmp_path, golden):
    shutil.copytree(golden / "importers" / "supervisely", tmp_path, dirs_exist_ok=True)
    names, instances = labels(tmp_path, ImportRules(stuff_classes=["sky"]), split_by="tags")["scene"]
    assert splits(tmp_path) == ["train"]
    numbers = np.array(Image.open(golden / "importers" / "supervisely" / "sdk_class.png"))
    expected = np.array(["", "sky", "car", "person", "smoke"], object)[numbers]
    off = names != expected
    assert off.sum() == 2  # On the slanted outlines of a small car, as OpenCV rounds in another way than Pillow.
    assert not off[:24].any() and not off[:, :26].any() and not off[30:44, 46:62].any()
    assert instances[38, 5] == instances[30, 47] != instances[43, 29] > 0
    classes = read_descriptor(tmp_path / "own/descriptor.json").classes
    assert [(c.name, c.color) for c in classes][:2] == [("sky", (90, 150, 240)), ("car", (220, 60, 40))]


def test_the_pixels_of_an_outline_belong_to_a_polygon_but_not_to_its_hole(project, capsys):
    soft = np.zeros((20, 24), np.uint8)
    soft[15, 20:23] = 127, 128, 255
    save(
        project,
        "d",
        "a",
        [
            polygon("mud", [[0, 0], [23, 0], [23, 19], [0, 19]]),
            polygon("cat", ONE, [[[6, 4], [8, 4], [8, 6], [6, 6]]], instance="k"),
            polygon("cat", [[14, 2], [20, 5]], kind="rectangle", instance="k"),
            bitmap("cat", soft, "alpha_mask"),
            {
                "classTitle": "cat",
                "geometryType": "multipolygon",
                "parts": [
                    {"exterior": [[0, 12], [2, 12], [2, 14], [0, 14]]},
                    {"exterior": [[5, 12], [7, 12], [6, 14]]},
                ],
            },
            polygon("cat", [[3, 3]], kind="point"),
        ],
    )
    names, instances = labels(project, ImportRules(stuff_classes=["mud"]))["a"]
    expected = np.zeros((20, 24), bool)
    expected[2:9, 4:12] = True
    expected[4:7, 6:9] = False
    expected[2:6, 14:21] = True
    np.testing.assert_array_equal((names == "cat")[:10], expected[:10])
    assert (names == "mud").sum() == 480 - (names == "cat").sum()
    assert instances[2, 4] == instances[2, 14]
    assert names[15, 20] == "mud" and names[15, 21] == names[15, 22] == "cat"
    assert instances[13, 1] == instances[12, 6] != instances[2, 4]
    assert "annotations without an area left out: 1 point" in capsys.readouterr().out


def test_old_projects_give_the_shape_of_a_class_only(project):
    old = bitmap("dog", np.eye(20, 24) > 0)
    del old["geometryType"]
    save(project, "d", "a", [old])
    assert (labels(project)["a"][0] == "dog").sum() == 20


def test_splits_by_fraction_by_dataset_and_by_tag(project, capsys):
    thing = [polygon("cat", ONE)]
    save(project, "train", "a", thing, tags=[{"name": "val"}, {"name": "rain"}])
    save(project, "train", "b", thing, tags=[{"name": "train"}])
    save(project, "val", "c", thing)
    save(project, "val/datasets/night", "d", thing, tags=[{"name": "val"}])
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(project / "val/img/unlabelled.png")
    assert sorted(labels(project, val_fraction=0.5)) == ["a", "b", "c", "d"] and splits(project) == ["train", "val"]
    assert "1 of 2 pictures left out: no JSON of this name in" in capsys.readouterr().out
    shutil.rmtree(project / "records")
    labels(project, split_by="datasets")
    assert splits(project) == ["train", "val", "val_night"]
    shutil.rmtree(project / "records")
    assert sorted(labels(project, split_by="tags")) == ["a", "b", "d"] and splits(project) == ["train", "val"]
    assert "1 of 4 pictures left out: they have none of the tags train, val, test" in capsys.readouterr().out
    save(project, "train", "a", thing, tags=[{"name": "val"}, {"name": "train"}])
    with pytest.raises(DataError, match='a.png.json: expected one tag of train, val, test, got ."train", "val".'):
        convert(project, split_by="tags")


def test_pictures_without_objects_and_pictures_that_are_not_there(project):
    save(project, "d", "a", [])
    assert set(labels(project)["a"][0].ravel()) == {""}
    (project / "d/img/a.png").unlink()
    with pytest.raises(DataError, match="d/ann/a.png.json: expected its picture in .*d/img, which is not there"):
        convert(project)
    shutil.rmtree(project / "d")
    with pytest.raises(DataError, match="expected datasets, folders with `ann` and `img` in them, got none"):
        convert(project)


@pytest.mark.parametrize(
    "each, reason",
    [
        (polygon("cow", ONE), 'classTitle: expected a class of meta.json, got "cow"'),
        (polygon("dog", ONE), r'expected a bitmap, as meta.json says of its class, got "polygon"'),
        (polygon("cat", ONE, kind="cuboid"), r'expected a shape of bitmap, .*, got "cuboid"; make it'),
        (polygon("cat", ONE, kind=None), "expected the field geometryType, as its class may have any shape"),
        (polygon("cat", ONE[:2]), "expected a polygon of at least 3 points"),
        (polygon("cat", ONE, [[[1, 2]]]), "expected a polygon of at least 3 points"),
        (polygon("cat", ONE, kind="rectangle"), r"points: exterior: expected two points of a rectangle, got 4"),
        (polygon("cat", [[0, 0], [90, 0], [0, 9]]), "expected points of the picture, 24 x 20 pixels, got x = 90"),
        ({"classTitle": "dog", "bitmap": {"data": "eJw", "origin": [0, 0]}}, "expected a mask in base64"),
        ({"classTitle": "dog", "bitmap": {"data": "", "origin": [0]}}, "bitmap: origin: expected x and y, got"),
    ],
)
def test_objects_that_cannot_be_drawn_are_refused(project, each, reason):
    save(project, "d", "a", [each])
    with pytest.raises(DataError, match=rf"d/ann/a.png.json: objects\[0\].*{reason}"):
        convert(project)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"projectType": "videos"}, 'projectType: expected a project of images, got "videos"'),
        (
            {"classes": [*META["classes"], META["classes"][0]]},
            r'classes\[3\].title: expected titles that differ, got "cat"',
        ),
        (
            {"classes": [{"title": "cat", "shape": "any", "color": "red"}]},
            r"classes\[0\].color: expected a color such as",
        ),
    ],
)
def test_mistakes_in_meta_are_refused(project, changes, reason):
    save_meta(project, **changes)
    with pytest.raises(DataError, match=f"meta.json: {reason}"):
        convert(project)


def test_the_command(project):
    save(project, "day", "a", [polygon("cat", ONE)])
    words = (f"--dataset={project}/own.json", f"--project_folder={project}", "--split_by=datasets")
    (path,) = run_command("supervisely", project / "records", *words)
    assert path.name == "day-00000-of-00001.tfrecord"
    assert labels_of_records([path], project / "own.json")["a"][0][3, 5] == "cat"


def write_mutated(folder, seed):
    save_meta(folder)
    first = [
        polygon("mud", [[0, 12], [23, 12], [23, 19], [0, 19]]),
        polygon("cat", ONE, [[[6, 4], [8, 4], [8, 6], [6, 6]]], instance="k"),
        polygon("cat", [[14, 2], [20, 5]], kind="rectangle", instance="k"),
        polygon("cat", [[3, 3]], kind="point"),
    ]
    mask = np.hypot(*(np.mgrid[:20, :24] - np.array([[[9]], [[15]]]))) < 4
    soft = np.clip(np.mgrid[:20, :24][1] * 20 - 200, 0, 255).astype(np.uint8)
    second = [bitmap("dog", mask), bitmap("dog", mask[:, ::-1]), bitmap("cat", soft, "alpha_mask")]
    contents = {
        "meta": META,
        "a": save(folder, "one", "a", first, tags=[{"name": "train"}]),
        "b": save(folder, "two", "b", second),
    }
    places = {"meta": "meta.json", "a": "one/ann/a.png.json", "b": "two/ann/b.png.json"}
    if seed % 5 == 4:
        name = ("meta", "a")[seed % 2]
        text, done = damaged_text(json.dumps(contents[name], indent=1), seed)
        (folder / places[name]).write_text(text, encoding="utf-8")
        return f"{name}: {done}"
    changed, done = mutated(contents, seed)
    for name, place in places.items():
        if name in changed:
            (folder / place).write_text(json.dumps(changed[name]))
    return done


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(500), marks=pytest.mark.slow)], ids=["30", "500"])
def test_mutated_projects_are_imported_right_or_refused(tmp_path, seeds):
    assert_right_or_refused(seeds, tmp_path, write_mutated, convert, oracle.read)
