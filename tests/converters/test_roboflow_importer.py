"""Roboflow's COCO segmentation exports: what the records hold, what is refused, and 500 broken files."""

import json
import shutil

import numpy as np
import pytest
from converters.oracles.coco import read_coco

from deeplab2_kmax.converters.importing.conversion import ImportRules, Shards
from deeplab2_kmax.converters.roboflow import convert_roboflow
from deeplab2_kmax.datasets import read_descriptor
from deeplab2_kmax.errors import DataError
from helpers.coco_export import STUFF_IDS, THING_IDS, exported, truth_of
from helpers.imported import assert_all_fine, difference, outcome
from helpers.mutations import mutated
from helpers.shapes_truth import STUFF, scenes

JSON = "_annotations.coco.json"
ENDING = "_png.rf.{}.jpg"


def write(folder, truth):
    """Writes scenes as Roboflow does: every fifth to valid, every tenth to test; returns {folder: document}."""
    parts = {
        "train": [s for k, s in enumerate(truth) if k % 5 != 3 and k % 10 != 9],
        "valid": truth[3::5],
        "test": truth[9::10],
    }
    return {name: write_split(folder / name, part) for name, part in parts.items() if part}


def write_split(folder, truth):
    folder.mkdir(parents=True)
    things, stuff = exported(truth), exported(truth, stuff=True)
    stuff["annotations"] = [{**a, "id": a["id"] + 10000} for a in stuff["annotations"]]
    document = {**things, "annotations": things["annotations"] + stuff["annotations"]}
    for scene, image in zip(truth, document["images"]):
        ending = ENDING.format(f"{hash_of(scene):08x}")
        scene.save(folder, ending)
        image["file_name"], image["extra"] = scene.name + ending, {"name": scene.name + ".png"}
    names = {**THING_IDS, **STUFF_IDS}
    group = [{"id": 0, "name": "scenes", "supercategory": "none"}]
    document["categories"] = group + [{"id": i, "name": n, "supercategory": "scenes"} for n, i in names.items()]
    (folder / JSON).write_text(json.dumps(document))
    return document


def hash_of(scene):
    return int(scene.image.astype(np.int64).sum())


def name_of(scene):
    return scene.name + ENDING.format(f"{hash_of(scene):08x}")[: -len(".jpg")]


def convert(folder, rules=None, **options):
    shards = Shards(str(folder / "records"), num_processes=1)
    rules = rules or ImportRules(stuff_classes=STUFF)
    return convert_roboflow(str(folder / "own.json"), str(folder / "export"), shards, rules, **options)


def test_round_trip_of_scenes(tmp_path, examples, label_of, capsys):
    truth = scenes()
    write(tmp_path / "export", truth)
    paths = convert(tmp_path, ImportRules(stuff_classes=STUFF, treat_crowd_as_ignore=False))
    assert [p.rsplit("/", 1)[1].split("-")[0] for p in paths] == ["train", "val", "test"]
    found = examples(paths)
    wrong = [difference(label_of(found[name_of(s)]), tmp_path / "own.json", *truth_of(s)) for s in truth]
    assert wrong == [None] * 20
    # The group of all classes is none.
    assert {c.name for c in read_descriptor(tmp_path / "own.json").classes} == {*THING_IDS, *STUFF_IDS}
    out = capsys.readouterr().out
    assert "train: 14 images" in out and "val: 4 images" in out and "test: 2 images" in out


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(500), marks=pytest.mark.slow)], ids=["30", "500"])
def test_broken_files_are_imported_right_or_refused(tmp_path, seeds, examples, label_of):
    outcomes = {}
    for seed in seeds:
        folder = tmp_path / str(seed)
        documents = write(folder / "export", scenes(count=4, size=33, seed=11))
        assert list(documents) == ["train", "valid"]
        broken_split = "valid" if seed % 3 == 0 else "train"
        broken, done = mutated(documents[broken_split], seed)
        (folder / "export" / broken_split / JSON).write_text(json.dumps(broken))
        # Written before, as the list of stuff on the command line has to be of classes that are there.
        if seed % 2:
            classes = [
                {"id": k, "name": n, "is_thing": n in THING_IDS} for k, n in enumerate((*THING_IDS, *STUFF_IDS), 1)
            ]
            descriptor = {"name": "own", "ignore_label": 0, "label_divisor": 1000, "classes": classes}
            (folder / "own.json").write_text(json.dumps(descriptor))
        result = outcome(
            lambda f=folder, known=seed % 2: convert(f, ImportRules(stuff_classes=[] if known else STUFF)),
            lambda f=folder: {
                **read_coco(f / "export/train" / JSON, stuff_names=STUFF, keep_empty=True),
                **read_coco(f / "export/valid" / JSON, stuff_names=STUFF, keep_empty=True),
            },
            folder / "own.json",
            examples,
            label_of,
            (JSON, "own.json", "stuff_classes", "export"),
        )
        outcomes[seed] = result, done
        shutil.rmtree(folder)
    assert_all_fine(outcomes, least_imported=len(seeds) // 5)


def test_categories_of_id_0_are_kept_if_they_are_classes(tmp_path, examples, label_of):
    document = write(tmp_path / "export", scenes(count=1, size=33))["train"]
    document["categories"][0]["name"] = "moon"
    (tmp_path / "export/train" / JSON).write_text(json.dumps(document))
    convert(tmp_path)
    assert "moon" in {c.name for c in read_descriptor(tmp_path / "own.json").classes}
    # A group may have the name of one of its classes.
    (tmp_path / "own.json").unlink()
    document["categories"][0]["name"] = "circle"
    for category in document["categories"][1:]:
        category["supercategory"] = "circle"
    (tmp_path / "export/train" / JSON).write_text(json.dumps(document))
    convert(tmp_path)
    assert len(read_descriptor(tmp_path / "own.json").classes) == len(THING_IDS) + len(STUFF_IDS)


def test_pictures_marked_as_showing_nothing_get_a_record(tmp_path, examples, label_of, capsys):
    document = write(tmp_path / "export", scenes(count=2, size=33))["train"]
    last = document["images"][1]["id"]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] != last]
    (tmp_path / "export/train" / JSON).write_text(json.dumps(document))
    found = examples(convert(tmp_path, ImportRules(stuff_classes=STUFF, background_class="rest")))
    descriptor = read_descriptor(tmp_path / "own.json")
    rest = next(c for c in descriptor.classes if c.name == "rest")
    assert (label_of(list(found.values())[1]) == rest.id * descriptor.label_divisor).all()
    assert "train: 1 of 2 pictures without annotations, taken for null" in capsys.readouterr().out


def test_what_is_refused(tmp_path):
    export = tmp_path / "export"
    export.mkdir()
    with pytest.raises(DataError, match="export: expected the folders train, valid, test or one of them, each"):
        convert(tmp_path)
    documents = write(export, scenes(count=4, size=33))
    (export / "test").mkdir()
    with pytest.raises(DataError, match="export/test: expected _annotations.coco.json, which is not there; export"):
        convert(tmp_path)
    (export / "test").rmdir()
    documents["valid"]["categories"][1]["name"] = "ball"
    (export / "valid" / JSON).write_text(json.dumps(documents["valid"]))
    with pytest.raises(DataError, match=r"valid/_annotations.coco.json: category 10 is 'ball' here, but 'circle' in"):
        convert(tmp_path)


def test_boxes(tmp_path):
    document = write(tmp_path / "export", scenes(count=1, size=33))["train"]
    document["annotations"][0].update(segmentation=[], bbox=[1, 1, 5, 5])
    (tmp_path / "export/train" / JSON).write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"annotations\[0\] \(id 1\): expected a segmentation, .* got a box only"):
        convert(tmp_path)
    assert convert(tmp_path, boxes=True)


def test_a_single_folder_and_the_command_line(tmp_path, capsys, convert_by_command):
    write_split(tmp_path / "export", scenes(count=2, size=33))
    arguments = [f"--dataset={tmp_path}/own.json", f"--folder={tmp_path}/export", f"--output_dir={tmp_path}/records"]
    arguments += [f"--stuff_classes={','.join(STUFF)}", "--num_processes=1"]
    assert convert_by_command("roboflow", *arguments) == 0
    assert "train: 2 images" in capsys.readouterr().out
