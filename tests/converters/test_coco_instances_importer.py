"""COCO's instances JSON, alone and with stuff: what the records hold, what is refused, and 500 broken files."""

import json
import pathlib
import random
import shutil

import numpy as np
import pytest
from converters.oracles.coco import mask_of, read_coco
from PIL import Image
from pycocotools.coco import COCO

from deeplab2_kmax.converters.coco_instances import convert_coco_instances
from deeplab2_kmax.converters.importing.conversion import ImportRules, Shards
from deeplab2_kmax.datasets import read_descriptor
from deeplab2_kmax.errors import DataError
from helpers.coco_export import STUFF_IDS, THING_IDS, THINGS, exported, runs, truth_of
from helpers.imported import assert_all_fine, difference, outcome
from helpers.mutations import mutated
from helpers.shapes_truth import STUFF, outlines, scenes


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path


def write(folder, truth, name="instances.json", **options):
    for scene in truth:
        scene.save(folder / "photos")
    (folder / name).write_text(json.dumps(exported(truth, **options)))


def convert(folder, rules=None, **options):
    shards = Shards(str(folder / "records"), num_processes=1)
    arguments = {"annotations": str(folder / "instances.json"), **options}
    return convert_coco_instances(
        str(folder / "own.json"), str(folder / "photos"), shards=shards, rules=rules, **arguments
    )


def label_png(scene, values):
    """The stuff of a scene as numbers; things have those of their classes, void 0."""
    numbers = np.zeros(scene.label.shape, np.uint8)
    for segment in scene.segments:
        numbers[segment.mask] = values[segment.class_name]
    return numbers


@pytest.mark.parametrize("stuff", ["json", "category_ids", "stuffthingmaps"])
def test_round_trip_of_scenes(folder, stuff, examples, label_of, capsys):
    truth = scenes()
    write(folder, truth)
    write(folder, truth, "stuff.json", stuff=True)
    options = {}
    if stuff != "json":
        (folder / "pngs").mkdir()
        for scene in truth:
            numbers = label_png(scene, {**THING_IDS, **STUFF_IDS})
            # COCO-Stuff: pixelmaps have 183 wherever things are, stuffthingmaps the id less 1, and 255 for void.
            numbers = np.where((numbers > 0) & (numbers < 92), 183, numbers)
            if stuff == "stuffthingmaps":
                numbers = label_png(scene, {**THING_IDS, **STUFF_IDS}) - 1
            Image.fromarray(numbers.astype(np.uint8)).convert("P").save(folder / "pngs" / f"{scene.name}.png")
        options = {"stuff_png_folder": str(folder / "pngs"), "stuff_png_values": stuff}
        content = json.loads((folder / "stuff.json").read_text())
        content["categories"].append({"id": 183, "name": "other"})
        (folder / "stuff.json").write_text(json.dumps(content))
    rules = ImportRules(treat_crowd_as_ignore=False)
    paths = convert(folder, rules, stuff_annotations=str(folder / "stuff.json"), **options)
    found = examples(paths)
    wrong = [difference(label_of(found[s.name]), folder / "own.json", *truth_of(s)) for s in truth]
    assert wrong == [None] * 20
    assert {c.name: (c.is_thing, c.source_id) for c in read_descriptor(folder / "own.json").classes} == {
        **{name: (True, number) for name, number in THING_IDS.items()},
        **{name: (False, number) for name, number in STUFF_IDS.items()},
    }
    assert "with iscrowd 1, which are taken for things" in capsys.readouterr().out


def test_round_trip_by_polygons_alone_loses_holes_that_are_void_or_larger_than_what_is_around_them(
    folder, examples, label_of
):
    truth = scenes()
    content = exported(truth)
    stuff = exported(truth, stuff=True)
    content["annotations"] += [{**a, "id": f"stuff {a['id']}"} for a in stuff["annotations"]]
    content["categories"] += stuff["categories"]
    for annotation in content["annotations"]:
        height, width = next((i["height"], i["width"]) for i in content["images"] if i["id"] == annotation["image_id"])
        mask = mask_of(annotation["segmentation"], height, width)
        annotation["segmentation"] = outlines(mask)[0]
    write(folder, truth)
    (folder / "instances.json").write_text(json.dumps(content))
    rules = ImportRules(stuff_classes=STUFF, treat_crowd_as_ignore=False)
    found = examples(convert(folder, rules))
    descriptor = read_descriptor(folder / "own.json")
    lost = 0
    for scene in truth:
        names = {c.id: c.name for c in descriptor.classes}
        ours = np.vectorize(lambda i, n=names: n.get(i, ""))(label_of(found[scene.name]) // descriptor.label_divisor)
        lost += int((ours != truth_of(scene)[0]).sum())
    # Of 78,000 pixels: those that are void within a hole, and one of a thing that is larger than what lies in its hole.
    assert lost == 10


def small(folder):
    """Three pictures with a JSON of things and one of stuff; returns both documents."""
    truth = scenes(count=3, size=33, seed=11)
    write(folder, truth)
    write(folder, truth, "stuff.json", stuff=True)
    return exported(truth), exported(truth, stuff=True)


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(500), marks=pytest.mark.slow)], ids=["30", "500"])
def test_broken_files_are_imported_right_or_refused(tmp_path, seeds, examples, label_of):
    outcomes = {}
    for seed in seeds:
        folder = tmp_path / str(seed)
        (folder / "photos").mkdir(parents=True)
        documents = small(folder)
        with_stuff = seed % 2 == 1
        broken, done = mutated(documents[seed % 4 == 3], seed)
        name = "stuff.json" if seed % 4 == 3 else "instances.json"
        (folder / name).write_text(json.dumps(broken))
        stuff = str(folder / "stuff.json") if with_stuff else None
        result = outcome(
            lambda f=folder, s=stuff: convert(f, stuff_annotations=s),
            lambda f=folder, s=stuff: read_coco(f / "instances.json", s),
            folder / "own.json",
            examples,
            label_of,
            ("instances.json", "stuff.json"),
        )
        outcomes[seed] = result, done
        shutil.rmtree(folder)
    assert_all_fine(outcomes, least_imported=len(seeds) // 5)


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(500), marks=pytest.mark.slow)], ids=["30", "500"])
def test_broken_stuff_pngs_are_imported_right_or_refused(tmp_path, seeds, examples, label_of):
    outcomes = {}
    truth = scenes(count=3, size=33, seed=11)
    for seed in seeds:
        folder = tmp_path / str(seed)
        (folder / "photos").mkdir(parents=True)
        (folder / "pngs").mkdir()
        documents = small(folder)
        things = documents[0]
        things["annotations"] = [a for a in things["annotations"] if not a["iscrowd"]]
        (folder / "instances.json").write_text(json.dumps(things))
        for scene in truth:
            numbers = label_png(scene, {**dict.fromkeys(THING_IDS, 183), **STUFF_IDS})
            Image.fromarray(numbers).save(folder / "pngs" / f"{scene.name}.png")
        stuff = {"categories": [*documents[1]["categories"], {"id": 183, "name": "other"}]}
        stuff, done = mutated(stuff, seed) if seed % 3 == 0 else (stuff, "")
        (folder / "stuff.json").write_text(json.dumps(stuff))
        if seed % 3:
            done = damage_png(folder / "pngs/scene_01.png", random.Random(seed))
        stuff_options = {"stuff_annotations": str(folder / "stuff.json"), "stuff_png_folder": str(folder / "pngs")}
        result = outcome(
            lambda f=folder, s=stuff_options: convert(f, **s),
            lambda f=folder: read_coco(f / "instances.json", f / "stuff.json", pngs=f / "pngs"),
            folder / "own.json",
            examples,
            label_of,
            ("stuff.json", "pngs/scene_0", "stuff_png_values"),
        )
        outcomes[seed] = result, done
        shutil.rmtree(folder)
    assert_all_fine(outcomes, least_imported=len(seeds) // 10)


def damage_png(path, draw):
    """Changes pixels, the size, the mode or a byte of a PNG; returns what was done."""
    kind = draw.choice(("pixels", "pixels", "size", "mode", "byte", "cut"))
    image = Image.open(path)
    if kind in ("byte", "cut"):
        content = bytearray(path.read_bytes())
        place = draw.randrange(len(content))
        content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(content[:place] if kind == "cut" else content))
        return f"{kind} {place}"
    numbers = np.asarray(image).copy()
    value = draw.choice((0, 1, 255, 91, 182, 184, *THING_IDS.values(), *STUFF_IDS.values()))
    top = draw.randrange(25)
    numbers[top : top + 4, 5:20] = value
    if kind == "size":
        numbers = numbers[1:] if value % 2 else numbers[:, 2:]
    mode = draw.choice(("P", "RGB", "LA", "1", "L")) if kind == "mode" else "L"
    Image.fromarray(numbers).convert(mode).save(path)
    return f"{kind} {value} {mode}"


def test_shapes_are_filled_as_pycocotools_does_it(folder, examples, label_of):
    rng = np.random.RandomState(3)
    polygon = rng.uniform(0, 40, 14).round(2).tolist()
    mask, other = rng.rand(2, 40, 50) < 0.2
    document = two(segmentation=[polygon, [1, 1, 4, 1, 4, 4]])
    document["annotations"].append({"id": 2, "image_id": 1, "category_id": 5, "segmentation": runs(mask, True)})
    document["annotations"].append({"id": 3, "image_id": 1, "category_id": 6, "segmentation": runs(other, False)})
    label = one_label(folder, document, examples, label_of, overlaps="later_on_top")
    coco = COCO(str(folder / "instances.json"))
    expected = np.zeros((40, 50), int)
    for number, panoptic_id in ((1, 1001), (2, 1002), (3, 2001)):
        expected[coco.annToMask(coco.anns[number]) > 0] = panoptic_id
    np.testing.assert_array_equal(label, expected)


def square(left, top, size):
    right, bottom = left + size, top + size
    return [left, top, right, top, right, bottom, left, bottom]


def two(**changes):
    """A document of one picture with one annotation, and two categories."""
    annotation = {"id": 1, "image_id": 1, "category_id": 5, "segmentation": [square(4, 4, 20)], **changes}
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 50}],
        "annotations": [{k: v for k, v in annotation.items() if v is not ...}],
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
    }


def put(folder, document, name="instances.json"):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(folder / "photos/a.png")
    (folder / name).write_text(json.dumps(document))


def one_label(folder, document, examples, label_of, options=None, **rules):
    put(folder, document)
    return label_of(examples(convert(folder, ImportRules(**rules), **(options or {})))["a"])


def test_smaller_regions_are_on_top_unless_another_order_is_asked_for(folder, examples, label_of, capsys):
    document = two(segmentation=[square(8, 8, 4)])
    document["annotations"].append({**document["annotations"][0], "id": 2, "segmentation": [square(4, 4, 20)]})
    label = one_label(folder, document, examples, label_of)
    assert label[9, 9] == 1001 and (label == 1002).sum() == 400 - 16
    assert "train: pixels of things lost to regions on top: 16 in 1 of 1 image" in capsys.readouterr().out
    assert one_label(folder, document, examples, label_of, overlaps="earlier_on_top")[9, 9] == 1001
    label = one_label(folder, document, examples, label_of, overlaps="later_on_top")
    assert (label == 1001).sum() == 400 and "things hidden completely: 1" in capsys.readouterr().out


def test_stuff_lies_below_instances_even_where_it_is_smaller(folder, examples, label_of):
    stuff = two(segmentation=[square(6, 6, 4), square(30, 30, 5)])
    stuff["categories"] = [{"id": 5, "name": "sky"}]
    put(folder, stuff, "stuff.json")
    options = {"stuff_annotations": str(folder / "stuff.json")}
    put(folder, two())
    with pytest.raises(DataError, match=r"stuff.json: category 5 is 'sky', but .*instances.json has 'cat' as 5"):
        convert(folder, **options)
    stuff["categories"][0]["id"] = stuff["annotations"][0]["category_id"] = 92
    put(folder, stuff, "stuff.json")
    label = one_label(folder, two(), examples, label_of, options)
    assert label[7, 7] == 1001 and (label == 3000).sum() == 25


def test_a_thing_of_a_stuff_png_without_an_instance_is_void_and_other_numbers_are_refused(folder, examples, label_of):
    numbers = np.full((40, 50), 92, np.uint8)
    numbers[:, 30:], numbers[:2] = 5, 0
    (folder / "pngs").mkdir()
    Image.fromarray(numbers).save(folder / "pngs/a.png")
    (folder / "stuff.json").write_text(json.dumps({"categories": [{"id": 92, "name": "sky"}]}))
    options = {"stuff_annotations": str(folder / "stuff.json"), "stuff_png_folder": str(folder / "pngs")}
    label = one_label(folder, two(), examples, label_of, options)
    assert label[10, 10] == 1001 and label[30, 10] == 3000 and label[30, 40] == 0 and label[1, 1] == 0
    with pytest.raises(DataError, match=r"pngs/a.png: 700 pixels? with the value .*|pngs/a.png: .* with the value"):
        convert(folder, **options, stuff_png_values="stuffthingmaps")
    Image.fromarray(numbers[:, 1:]).save(folder / "pngs/a.png")
    with pytest.raises(DataError, match=r"pngs/a.png: expected 50 x 40 pixels, as the picture has, got 49 x 40"):
        convert(folder, **options)
    (folder / "pngs/a.png").unlink()
    with pytest.raises(DataError, match=r"images\[0\]: expected the file \"a.png\" in .*pngs, which is not there"):
        convert(folder, **options)
    with pytest.raises(DataError, match="stuff_annotations: expected the JSON file that names the categories"):
        convert(folder, stuff_png_folder=str(folder / "pngs"))


def test_png_of_coco_stuff_read_by_the_meaning_of_its_other_kind_are_refused(folder):
    (folder / "pngs").mkdir()
    put(folder, two())
    categories = [{"id": 92, "name": "banner"}, {"id": 93, "name": "blanket"}, {"id": 183, "name": "other"}]
    (folder / "stuff.json").write_text(json.dumps({"categories": categories}))
    options = {"stuff_annotations": str(folder / "stuff.json"), "stuff_png_folder": str(folder / "pngs")}
    for kind, numbers in (("category_ids", (92, 255)), ("stuffthingmaps", (92, 183)), ("stuffthingmaps", (92, 182))):
        png = np.full((40, 50), numbers[0], np.uint8)
        png[:3] = numbers[1]
        Image.fromarray(png).save(folder / "pngs/a.png")
        with pytest.raises(DataError, match=rf"a.png: 150 pixels with the value {numbers[1]}: expected one of"):
            convert(folder, **options, stuff_png_values=kind)


def test_the_stuff_category_of_pixels_of_things_is_void_where_no_instance_is(folder, examples, label_of, capsys):
    stuff = two(segmentation=[square(0, 0, 30)], category_id=183)
    stuff["categories"] = [{"id": 92, "name": "banner"}, {"id": 183, "name": "other"}]
    stuff["annotations"].append({**stuff["annotations"][0], "id": 2, "category_id": 92})
    stuff["annotations"][1]["segmentation"] = [square(30, 30, 10)]
    put(folder, stuff, "stuff.json")
    options = {"stuff_annotations": str(folder / "stuff.json")}
    label = one_label(folder, two(), examples, label_of, options, background_class="ground")
    assert [label[y, x] for y, x in ((10, 10), (1, 1), (35, 35), (5, 45))] == [1001, 0, 3000, 4000]
    assert '"other" is of pixels of things, which are void where no instance is' in capsys.readouterr().out


REFUSED = {
    "unknown picture": ({"image_id": 2}, r"annotations\[0\] \(id 1\): expected the image_id of one of the 1 entry"),
    "id of another type": ({"image_id": "1"}, r"expected the image_id of one .* got \"1\""),
    "unknown category": ({"category_id": 7}, r"expected the category_id of one of the 2 entries .*\(5, 6\), got 7"),
    "crowd as text": ({"iscrowd": "0"}, r"annotations\[0\].iscrowd: expected 0, 1, true or false, got \"0\""),
    "no id": ({"id": ...}, r"annotations\[0\]: expected the field id, which is missing"),
    "nothing": ({"segmentation": []}, r"\(id 1\): expected a segmentation, .* got nothing only; outline it"),
    "a box": ({"segmentation": [], "bbox": [1, 1, 3, 3]}, "got a box only; .*; give --boxes to take boxes for rect"),
    "keypoints": ({"segmentation": ..., "keypoints": [1, 1, 2]}, "got keypoints only"),
    "flat": ({"segmentation": square(1, 1, 9)}, r"segmentation\[0\]: expected a list of numbers, got 1"),
    "two points": ({"segmentation": [[1, 1, 5, 5]]}, "expected a polygon of at least 3 points, .* got 4 numbers"),
    "text": ({"segmentation": "1 1 9 9"}, r"segmentation: expected a list of polygons, or run lengths"),
    "runs of another size": (
        {"segmentation": {"size": [50, 40], "counts": [2000]}},
        "run lengths for a picture of 50 x",
    ),
    "runs without size": ({"segmentation": {"counts": [2000]}}, "segmentation: expected the field size, which is"),
    "runs too short": ({"segmentation": {"size": [40, 50], "counts": [5, 6]}}, "add up to 2,000 pixels, got 11"),
    "runs cut": (
        {"segmentation": {"size": [40, 50], "counts": "0b"}},
        "compressed run lengths, got a text that is cut",
    ),
    "panoptic": ({"segments_info": []}, "convert coco_panoptic"),
    "smaller picture": ({"segmentation": [square(4, 4, 200)]}, "was the picture made smaller after it was labelled"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(folder, case):
    changes, message = REFUSED[case]
    put(folder, two(**changes))
    with pytest.raises(DataError, match=message):
        convert(folder)


@pytest.mark.parametrize("field", ["annotations", "images", "categories"])
def test_ids_that_occur_twice_are_refused(folder, field):
    document = two()
    document[field].append(dict(document[field][0]))
    put(folder, document)
    with pytest.raises(DataError, match=rf"{field}\[\d\].id: expected ids that differ, got \d as in {field}\[0\]"):
        convert(folder)


def test_names_of_categories_that_occur_twice_are_refused(folder):
    document = two()
    document["categories"][1]["name"] = "cat"
    put(folder, document)
    with pytest.raises(DataError, match=r'instances.json: expected names .* differ, but 5 and 6 are both "cat"'):
        convert(folder)


def test_boxes_are_rectangles_if_asked_for(folder, examples, label_of):
    document = two(segmentation=[], bbox=[10, 5, 8, 6])
    label = one_label(folder, document, examples, label_of, {"boxes": True})
    assert (label[5:11, 10:18] == 1001).all() and (label > 0).sum() == 48
    put(folder, two(segmentation=[], bbox=[10, 5, 0, 6]))
    with pytest.raises(DataError, match=r"annotations\[0\].bbox: expected x, y, width and height in pixels, got"):
        convert(folder, boxes=True)


def test_an_export_of_datumaro_whose_masks_are_all_marked_as_crowds(tmp_path, examples, label_of, capsys):
    golden = pathlib.Path(__file__).parents[1] / "golden/importers/coco_instances"
    truth = {scene.name: scene for scene in scenes(count=3, size=33, seed=11)}
    for split, count in (("train", 2), ("val", 1)):
        paths = convert_coco_instances(
            str(tmp_path / "own.json"),
            str(golden / "images" / split),
            str(golden / f"annotations/instances_{split}.json"),
            Shards(str(tmp_path / "records"), num_processes=1),
            ImportRules(stuff_classes=STUFF if split == "train" else ()),
            ignore_iscrowd=True,
            split=split,
        )
        found = examples(paths)
        assert len(found) == count
        for name, example in found.items():
            names, instances = truth_of(truth[name])
            # Crowds are no longer told from things, as all are marked.
            crowds = np.isin(names, [c.name for c in THINGS]) & (instances == 0)
            instances = np.where(crowds, 1, instances)
            assert difference(label_of(example), tmp_path / "own.json", names, instances) is None


def test_crowds_are_void_or_a_crowd_or_one_thing(folder, examples, label_of, capsys):
    document = two(iscrowd=1)
    assert (one_label(folder, document, examples, label_of) == 0).all()
    assert "1 of 1 annotation with iscrowd 1" in capsys.readouterr().out
    assert one_label(folder, document, examples, label_of, treat_crowd_as_ignore=False).max() == 1000
    assert one_label(folder, document, examples, label_of, {"ignore_iscrowd": True}).max() == 1001


def test_pictures_without_annotations_are_left_out_and_counted_unless_they_are_known_to_be_done(
    folder, examples, label_of, capsys
):
    document = two()
    document["images"].append({"id": 2, "file_name": "b.png", "height": 40, "width": 50})
    put(folder, document)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(folder / "photos/b.png")
    assert list(examples(convert(folder))) == ["a"]
    assert "1 of 2 pictures left out: no annotations (--empty_images" in capsys.readouterr().out
    found = examples(convert(folder, ImportRules(background_class=None), empty_images=True))
    assert (label_of(found["b"]) == 0).all()


def test_pictures_are_found_in_folders_by_names_of_windows_and_of_urls(folder, examples):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(folder / "photos/ä b.png")
    for name in ("x\\ä b.png", "http://host/%C3%A4%20b.png", "/disk/a\u0308 b.png"):
        document = two()
        document["images"][0]["file_name"] = name
        put(folder, document)
        assert list(examples(convert(folder))) == ["ä b"]
    document["images"][0]["file_name"] = "c.png"
    put(folder, document)
    with pytest.raises(DataError, match=r"images\[0\]: expected the file \"c.png\" in .*photos, which is not there"):
        convert(folder)


def test_a_picture_of_another_size_is_called_that(folder):
    document = two()
    document["images"][0]["width"] = 51
    put(folder, document)
    with pytest.raises(DataError, match=r"images\[0\]: expected a picture of 51 x 40 pixels, .* got 50 x 40"):
        convert(folder)


def test_classes_are_found_by_name_in_a_descriptor_that_is_there(folder, examples, label_of):
    one_label(folder, two(), examples, label_of)
    document = two()
    document["categories"] = [{"id": 5, "name": "dog"}, {"id": 1, "name": "cat"}]
    assert set(np.unique(one_label(folder, document, examples, label_of))) == {0, 2001}
    document["categories"][0]["name"] = "bird"
    put(folder, document)
    with pytest.raises(DataError, match="the class 'bird' is not one of .*own.json, expected cat, dog"):
        convert(folder)


def test_splits_and_the_command_line(folder, capsys, convert_by_command):
    write(folder, scenes(count=4, size=33))
    arguments = [f"--dataset={folder}/own.json", f"--image_folder={folder}/photos", f"--output_dir={folder}/records"]
    arguments += [f"--annotations={folder}/instances.json", "--val_fraction=0.25", "--num_processes=1"]
    assert convert_by_command("coco_instances", *arguments) == 0
    out = capsys.readouterr().out
    assert "train: 3 images" in out and "val: 1 image" in out
