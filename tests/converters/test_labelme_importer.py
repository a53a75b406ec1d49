"""Folders of labelme's JSONs."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from converters.oracles import labelme as oracle
from PIL import Image
from scipy import ndimage

from deeplab2_kmax.converters.importing.conversion import ImportRules, Shards
from deeplab2_kmax.converters.labelme import convert_labelme
from deeplab2_kmax.datasets import read_descriptor
from deeplab2_kmax.errors import DataError
from helpers.import_trials import assert_right_or_refused, labels_of_records, labels_of_scene, run_command
from helpers.imported import difference_of_maps
from helpers.mutations import damaged_text, mutated
from helpers.shapes_truth import STUFF, outlines, scenes

ONE = [[4, 2], [12, 2], [12, 9], [4, 9]]


def shape(label, points, kind="polygon", **fields):
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **fields}


def mask_shape(label, mask, **fields):
    rows, columns = np.nonzero(mask)
    top, left, bottom, right = (int(v) for v in (rows.min(), columns.min(), rows.max(), columns.max()))
    stream = io.BytesIO()
    Image.fromarray(mask[top : bottom + 1, left : right + 1].astype(np.uint8)).save(stream, format="png")
    encoded = base64.b64encode(stream.getvalue()).decode()
    return shape(label, [[left, top], [right, bottom]], "mask", mask=encoded, **fields)


def save(folder, name, drawn, height=20, width=24, **fields):
    content = {"version": "5.4.1", "shapes": drawn, "imagePath": f"{name}.png", "imageData": None}
    content.update({"imageHeight": height, "imageWidth": width}, **fields)
    (folder / f"{name}.json").write_text(json.dumps(content))
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(folder / f"{name}.png")
    return content


def embedded(height=20, width=24):
    stream = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 77, np.uint8)).save(stream, format="png")
    return base64.b64encode(stream.getvalue()).decode()


def convert(folder, rules=ImportRules(), **arguments):
    dataset = str(folder / "own" / "descriptor.json")
    shards = Shards(str(folder / "records"), num_processes=1)
    return convert_labelme(dataset, str(folder), shards, rules, **arguments), dataset


def labels(folder, *arguments, **options):
    return labels_of_records(*convert(folder, *arguments, **options))


def shapes_of(scene, kind):
    """A scene as shapes: crowds as void, as labelme knows no crowds."""
    made = []
    for number, segment in enumerate(scene.segments):
        label = "__ignore__" if segment.is_crowd else segment.class_name
        if kind == "mask":
            made.append(mask_shape(label, segment.mask))
        else:
            loops = outlines(segment.mask)[0]
            made += [shape(label, np.reshape(loop, (-1, 2)).tolist(), group_id=number) for loop in loops]
    return made


@pytest.mark.parametrize("kind, in_holes", [("mask", 0), ("polygon", 9)])
def test_scenes_come_back(tmp_path, kind, in_holes):
    """What polygons cannot express are holes through which void is seen."""
    truth = scenes()
    for scene in truth:
        save(tmp_path, scene.name, shapes_of(scene, kind), *scene.label.shape)
        scene.save(tmp_path)
    found = labels(tmp_path, ImportRules(stuff_classes=STUFF))
    assert len(found) == 20
    wrong = 0
    for scene in truth:
        names, instances = labels_of_scene(scene)
        got_names, got_instances = found[scene.name]
        off = (got_names != names) | ((got_instances > 0) != (instances > 0))
        holes = np.any([ndimage.binary_fill_holes(s.mask) & ~s.mask for s in scene.segments], 0)
        assert not (off & ~holes).any()
        wrong += int(off.sum())
        names[off], instances = got_names[off], np.where(off, got_instances, instances)
        assert not difference_of_maps(got_names, got_instances, names, instances), scene.name
    assert wrong == in_holes


def test_what_labelme_wrote_is_read_as_labelme_draws_it(tmp_path, golden):
    """Up to a pixel along outlines: labelme adds those that an outline touches, and masks are equal throughout."""
    made = golden / "importers" / "labelme"
    for name in ("yard.json", "yard.png"):
        shutil.copy(made / name, tmp_path)
    names, instances = labels(tmp_path, ImportRules(stuff_classes=["sky"]))["yard"]
    expected = np.array(["", "sky", "car", "person"], object)[np.array(Image.open(made / "labelme_class.png")) % 255]
    numbers = np.array(Image.open(made / "labelme_instance.png"))
    off = names != expected
    assert 0 < off.sum() == 92
    edges = [numbers != np.roll(numbers, step, axis) for step in (1, -1) for axis in (0, 1)]
    assert not (off & ~np.any(edges, 0)).any()
    # The car of group 1 has two parts; the mask has a hole.
    car = instances[35, 29]
    assert names[35, 29] == names[30, 47] == "car" and instances[30, 47] == car != instances[38, 6]
    for number in range(1, int(numbers.max()) + 1):
        inner = ndimage.binary_erosion(numbers == number, iterations=1)
        assert len({*zip(names[inner], instances[inner])}) <= 1


def test_shapes_are_drawn_later_on_top(tmp_path, capsys):
    save(
        tmp_path,
        "a",
        [
            shape("box", [[12, 2], [4, 9]], "rectangle"),
            shape("disc", [[10, 8], [13, 12]], "circle"),
            shape("turned", [[18, 2], [22, 6], [18, 10], [14, 6]], "oriented_rectangle"),
            shape("wire", [[0, 0], [5, 5]], "line"),
            shape("wire", [[0, 0], [5, 5], [7, 7]], "linestrip"),
            shape("wire", [[1, 1]], "point"),
        ],
    )
    names, _ = labels(tmp_path)["a"]
    assert (names[2:9, 4:12] != "").all() and names[2, 4] == "box" and names[8, 10] == "disc"
    rows, columns = np.mgrid[:20, :24] + 0.5
    assert ((names == "disc") == (np.hypot(rows - 8, columns - 10) <= 5))[:, :13].all()
    assert names[6, 18] == "turned"
    out = capsys.readouterr().out
    assert "annotations without an area left out: 1 line, 1 linestrip, 1 point" in out
    assert "pixels of things lost to regions on top" in out
    assert [c.name for c in read_descriptor(tmp_path / "own/descriptor.json").classes] == ["box", "disc", "turned"]


def test_groups_join_the_parts_of_one_label(tmp_path):
    far = [[16, 12], [20, 12], [20, 15], [16, 15]]
    alone = [[0, 12], [3, 12], [3, 15], [0, 15]]
    save(tmp_path, "a", [shape("cat", ONE, group_id=3), shape("cat", far, group_id=3), shape("dog", alone, group_id=3)])
    names, instances = labels(tmp_path)["a"]
    assert instances[3, 5] == instances[13, 17] > 0
    assert names[13, 1] == "dog" and len(np.unique(instances[names == "cat"])) == 1


def test_ignore_is_void_and_background_is_what_the_user_says(tmp_path):
    shapes = [
        shape("cat", [[0, 0], [24, 0], [24, 20], [0, 20]]),
        shape("__ignore__", ONE),
        shape("_background_", [[16, 12], [20, 12], [20, 15], [16, 15]]),
    ]
    save(tmp_path, "a", shapes)
    names, _ = labels(tmp_path)["a"]
    assert set(names.ravel()) == {"cat", ""} and names[3, 5] == names[13, 17] == ""
    shutil.rmtree(tmp_path / "own")
    shutil.rmtree(tmp_path / "records")
    names, _ = labels(tmp_path, ImportRules(background_class="floor"))["a"]
    assert names[3, 5] == "" and names[13, 17] == "floor"
    assert [(c.name, c.is_thing) for c in read_descriptor(tmp_path / "own/descriptor.json").classes] == [
        ("cat", True),
        ("floor", False),
    ]


def test_pictures_are_found_where_they_lie(tmp_path, capsys):
    save(tmp_path, "a", [shape("cat", ONE)], imagePath="..\\photos\\a.png")
    photos = tmp_path / "elsewhere"
    photos.mkdir()
    (tmp_path / "a.png").rename(photos / "a.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(photos / "unlabelled.png")
    with pytest.raises(DataError, match='a.json: imagePath: expected a picture in .*, got ".*photos.*a.png", which is'):
        convert(tmp_path)
    assert labels(tmp_path, image_folder=str(photos))["a"][0][3, 5] == "cat"
    assert f"1 of 2 pictures left out: no JSON names them ({photos})" in capsys.readouterr().out


def test_pictures_that_are_in_the_json_only_are_read_from_there(tmp_path, capsys, examples):
    save(tmp_path, "a", [shape("cat", ONE)], imagePath="C:\\photos\\cat 1.png", imageData=embedded())
    (tmp_path / "a.png").unlink()
    paths, dataset = convert(tmp_path)
    (example,) = examples(paths).values()
    assert example.features.feature["image/encoded"].bytes_list.value[0] == base64.b64decode(embedded())
    assert labels_of_records(paths, dataset)["cat 1"][0][3, 5] == "cat"
    assert f"{tmp_path}: 1 picture read from imageData, as there is no file of the name" in capsys.readouterr().out


def test_a_json_without_shapes_is_a_picture_of_background(tmp_path):
    save(tmp_path, "a", [shape("cat", ONE)])
    save(tmp_path, "b", [])
    found = labels(tmp_path, val_fraction=0.5)
    assert set(found["b"][0].ravel()) == {""}
    assert sorted(p.name for p in (tmp_path / "records").glob("*.tfrecord")) == [
        "train-00000-of-00001.tfrecord",
        "val-00000-of-00001.tfrecord",
    ]


def test_pictures_are_upright_as_labelme_shows_them(tmp_path):
    save(tmp_path, "a", [shape("cat", ONE)], imagePath="a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((24, 20, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.png").unlink()
    assert labels(tmp_path)["a"][0].shape == (20, 24)


@pytest.mark.parametrize(
    "change, reason",
    [
        (
            {"shapes": [shape("cat", ONE, "cuboid")]},
            r"shapes\[0\].shape_type: expected one of polygon, .*, got .cub",
        ),
        ({"shapes": [shape("cat", ONE[:2])]}, r"shapes\[0\]: expected a polygon of at least 3 points"),
        ({"shapes": [shape("cat", ONE, "circle")]}, r"shapes\[0\].points: expected 2 points of a circle, got 4"),
        ({"shapes": [shape("cat", [[1, 2, 3]])]}, r"shapes\[0\].points\[0\]: expected x and y of a point"),
        ({"shapes": [shape("cat", ONE, group_id="x")]}, r"shapes\[0\].group_id: expected a whole number"),
        ({"shapes": [shape("cat", [[0, 0], [3, 3]], "mask")]}, r"shapes\[0\]: expected the field mask"),
        ({"shapes": [shape("cat", [[0, 0], [3, 3]], "mask", mask="?")]}, r"shapes\[0\]: expected a mask in base64"),
        ({"imageHeight": 21}, "expected a picture of 24 x 21 pixels, as the annotations say, got 24 x 20"),
        ({"imagePath": "b.png"}, 'imagePath: expected a picture in .*, got "b.png", which is not there'),
        ({"imagePath": "b.png", "imageData": "x"}, "imageData: expected a picture in base64, got 1 character that"),
        ({"imagePath": "b.png", "imageData": "eHh4eHh4"}, "expected a picture .*, got 6 bytes of another kind"),
        ({"shapes": None}, "expected the field shapes, which is missing"),
    ],
)
def test_mistakes_are_refused_by_name(tmp_path, change, reason):
    save(tmp_path, "a", [shape("cat", ONE)], **change)
    with pytest.raises(DataError, match=f"a.json.*{reason}"):
        convert(tmp_path)


def test_masks_that_do_not_fit_are_refused(tmp_path):
    whole = mask_shape("cat", np.ones((4, 5), bool))
    save(tmp_path, "a", [{**whole, "points": [[0, 0], [5, 3]]}])
    with pytest.raises(
        DataError, match=r"shapes\[0\]: expected a mask of 6 x 4 pixels, as the annotations say, got 5 x 4"
    ):
        convert(tmp_path)
    save(tmp_path, "a", [{**whole, "points": [[20, 0], [24, 3]]}])
    with pytest.raises(DataError, match=r"expected a mask within the picture, 24 x 20 pixels, got one of 5 x 4 pixels"):
        convert(tmp_path)


def test_folders_without_jsons_and_two_jsons_of_one_picture_are_refused(tmp_path):
    with pytest.raises(DataError, match="expected the JSONs of labelme, got none"):
        convert(tmp_path)
    save(tmp_path, "a", [shape("cat", ONE)])
    shutil.copy(tmp_path / "a.json", tmp_path / "copy.json")
    with pytest.raises(DataError, match="copy.json: expected each picture once in train, got .*a.png again"):
        convert(tmp_path)


def test_the_command(tmp_path):
    save(tmp_path, "a", [shape("cat", ONE)])
    words = (f"--dataset={tmp_path}/own.json", f"--label_folder={tmp_path}", "--overlaps=smaller_on_top")
    found = labels_of_records(run_command("labelme", tmp_path / "records", *words), tmp_path / "own.json")
    assert found["a"][0][3, 5] == "cat"


def write_mutated(folder, seed):
    first = [
        shape("cat", ONE, group_id=1),
        shape("cat", [[14, 10], [20.5, 10], [20, 15.5], [14, 15]], group_id=1),
        shape("mud", [[0, 12], [23, 19]], "rectangle"),
        shape("dog", [[10, 8], [13, 12]], "circle"),
        shape("wire", [[0, 0], [5, 5]], "line"),
    ]
    mask = np.hypot(*(np.mgrid[:20, :24] - np.array([[[9]], [[15]]]))) < 4
    second = [mask_shape("dog", mask), shape("__ignore__", ONE), mask_shape("dog", mask.T[:20, :20])]
    contents = {"a": save(folder, "a", first), "b": save(folder, "b", second, imageData=embedded())}
    (folder / "b.png").unlink()
    if seed % 5 == 4:
        text, done = damaged_text(json.dumps(contents["a"], indent=1), seed)
        (folder / "a.json").write_text(text, encoding="utf-8")
        return done
    changed, done = mutated(contents, seed)
    for name in ("a", "b"):
        if isinstance(changed, dict) and name in changed:
            (folder / f"{name}.json").write_text(json.dumps(changed[name]))
    return done


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(500), marks=pytest.mark.slow)], ids=["30", "500"])
def test_mutated_folders_are_imported_right_or_refused(tmp_path, seeds):
    assert_right_or_refused(seeds, tmp_path, write_mutated, convert, oracle.read)
