"""Mapillary Vistas."""

import copy
import json
import shutil

import numpy as np
import pytest
from converters.oracles import mapillary as oracle
from PIL import Image

from deeplab2_kmax.converters.mapillary import convert_mapillary
from deeplab2_kmax.datasets import read_descriptor
from deeplab2_kmax.errors import DataError
from helpers.import_trials import assert_right_or_refused, labels_of_records, labels_of_scene, panoptic_ids, run_command
from helpers.imported import difference_of_maps
from helpers.mutations import damaged_text, mutated
from helpers.shapes_truth import CLASSES, scenes

HEIGHT, WIDTH = 20, 24
CONFIG = {
    "version": "2.0",
    "labels": [
        {"name": "sky", "readable": "Sky", "color": [70, 130, 180], "instances": False, "evaluate": True},
        {"name": "car", "readable": "Car", "color": [0, 0, 142], "instances": True, "evaluate": True},
        {"name": "car-group", "readable": "Cars", "color": [0, 0, 143], "instances": True, "evaluate": False},
        {"name": "void", "readable": "Unlabeled", "color": [0, 0, 0], "instances": False, "evaluate": False},
    ],
}


def numbers(seed=0):
    """Sky above, two cars, of which the first is number 0, a group of cars, and void."""
    made = np.full((HEIGHT, WIDTH), 3 * 256)
    made[:8] = 0
    made[9:14, 2:7], made[9:14, 9 + seed : 15] = 256, 256 + 3
    made[15:18, 4:9], made[15:18, 12:20] = 2 * 256, 2 * 256 + 1
    return made


def save(folder, split, name, made, release="v2.0"):
    for kind in ("images", f"{release}/instances"):
        (folder / split / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(made.astype(np.uint16)).save(folder / split / release / "instances" / f"{name}.png")
    Image.fromarray(np.zeros((*made.shape, 3), np.uint8)).save(folder / split / "images" / f"{name}.jpg")


def save_config(folder, config=CONFIG, name="config_v2.0.json"):
    (folder / name).write_text(json.dumps(config))


@pytest.fixture
def vistas(tmp_path):
    """v2.0: "a" in training, "b" in validation."""
    save_config(tmp_path)
    save(tmp_path, "training", "a", numbers())
    save(tmp_path, "validation", "b", numbers(1))
    return tmp_path


def convert(folder, **arguments):
    dataset = str(folder / "own" / "descriptor.json")
    return convert_mapillary(dataset, str(folder), str(folder / "records"), num_processes=1, **arguments), dataset


def labels(folder, **arguments):
    return labels_of_records(*convert(folder, **arguments))


def test_scenes_come_back(tmp_path):
    """All pixels, crowds as a label that is not evaluated, as in v2.0."""
    ids = sorted(CLASSES)
    entry = {"instances": False, "evaluate": False}
    config = [{"name": CLASSES[k].name, "instances": CLASSES[k].is_thing, "evaluate": True} for k in ids]
    save_config(tmp_path, {"labels": [*config, {"name": "group", **entry}, {"name": "void", **entry}]})
    truth = scenes()
    for scene in truth:
        classes, instances = scene.label // 256, scene.label % 256
        values = np.searchsorted(ids, classes)
        crowd = np.isin(classes, [k for k in ids if CLASSES[k].is_thing]) & (instances == 0)
        values[crowd], values[classes == 0] = len(ids), len(ids) + 1
        save(tmp_path, "training", scene.name, values * 256 + np.maximum(instances - 1, 0))
    found = labels(tmp_path)
    assert len(found) == 20
    for scene in truth:
        assert not difference_of_maps(*found[scene.name], *labels_of_scene(scene)), scene.name


def test_instances_count_from_0_and_what_is_not_evaluated_is_void(vistas):
    found = labels(vistas)
    names, instances = found["a"]
    assert (names[:8] == "sky").all() and not instances[:8].any()
    assert names[9, 2] == names[9, 9] == "car" and len({instances[8, 0], instances[9, 2], instances[9, 9]}) == 3
    assert set(names[14:].ravel()) == {""}
    descriptor = read_descriptor(vistas / "own/descriptor.json")
    assert [(c.source_id, c.name, c.is_thing, c.color) for c in descriptor.classes] == [
        (0, "sky", False, (70, 130, 180)),
        (1, "car", True, (0, 0, 142)),
    ]
    assert sorted(path.name[:5] for path in (vistas / "records").glob("*.tfrecord")) == ["train", "val-0"]


def test_pictures_of_the_test_set_have_no_labels(vistas, examples, capsys):
    (vistas / "testing/images").mkdir(parents=True)
    shutil.copy(vistas / "training/images/a.jpg", vistas / "testing/images/c.jpg")
    paths, _ = convert(vistas)
    assert "image/segmentation/class/encoded" not in examples(paths)["c"].features.feature
    assert "left out" not in capsys.readouterr().out


def test_releases_lie_beside_each_other(vistas):
    old = copy.deepcopy(CONFIG)
    old["labels"][0]["name"] = "heaven"
    save_config(vistas, old, "config_v1.2.json")
    for split in ("training", "validation"):
        shutil.copytree(vistas / split / "v2.0", vistas / split / "v1.2")
        shutil.copytree(vistas / split / "v2.0/instances", vistas / split / "instances")
    assert labels(vistas)["a"][0][0, 0] == "sky"
    shutil.rmtree(vistas / "own")
    assert labels(vistas, release="v1.2")["a"][0][0, 0] == "heaven"
    shutil.rmtree(vistas / "own")
    for release in ("v1.2", "v2.0"):
        (vistas / f"config_{release}.json").unlink()
    with pytest.raises(DataError, match="expected Mapillary Vistas .* in .*config_v2.0.json, .*config.json"):
        convert(vistas)
    old["labels"][0]["name"] = "firmament"
    save_config(vistas, old, "config.json")
    assert labels(vistas)["a"][0][0, 0] == "firmament"
    with pytest.raises(DataError, match="release: expected one of v2.0, v1.2, got 'v3'"):
        convert(vistas, release="v3")


def test_an_existing_descriptor_decides_by_names(vistas):
    convert(vistas)
    path = vistas / "own/descriptor.json"
    content = json.loads(path.read_text())
    for place, entry in enumerate(content["classes"]):
        entry.update(id=7 + place, source_id=90 - place)
    content["num_classes"] = 9
    path.write_text(json.dumps(content))
    label = panoptic_ids(convert(vistas)[0])["a"]
    assert set(label.ravel()) == {0, 7000, 8001, 8002}
    content["classes"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="config_v2.0.json: the class 'car' is not one of .*give --void_classes"):
        convert(vistas)
    assert set(panoptic_ids(convert(vistas, void_classes=["car"])[0])["a"].ravel()) == {0, 7000}


def test_labels_that_do_not_fit_are_refused(vistas):
    path = vistas / "training/v2.0/instances/a.png"
    made = numbers()
    made[0, :3] = 9 * 256
    Image.fromarray(made.astype(np.uint16)).save(path)
    with pytest.raises(DataError, match="a.png: 3 pixels of label 9: expected one of the 4 labels .* another release"):
        convert(vistas)
    Image.fromarray((numbers() // 256).astype(np.uint8)).save(path)
    with pytest.raises(DataError, match="a.png: expected a PNG with 16 bits, label . 256 . instance, got one with 8"):
        convert(vistas)
    Image.fromarray(numbers().astype(np.uint16)[1:]).save(path)
    with pytest.raises(DataError, match="a.jpg: .*24"):
        convert(vistas)
    path.unlink()
    with pytest.raises(DataError, match="v2.0/instances/a.png: no such file; expected it as label of .*a.jpg"):
        convert(vistas)


def test_labels_without_pictures_are_counted(vistas, capsys):
    shutil.copy(vistas / "training/v2.0/instances/a.png", vistas / "training/v2.0/instances/lost.png")
    convert(vistas)
    assert "split train: 1 label without an image left out (" in capsys.readouterr().out


def test_the_command(vistas):
    words = (f"--dataset={vistas}/own.json", f"--mapillary_root={vistas}", "--release=v2.0", "--num_shards=1")
    paths = run_command("mapillary", vistas / "records", *words)
    assert labels_of_records(paths, vistas / "own.json")["b"][0][0, 0] == "sky"


def write_mutated(folder, seed):
    save(folder, "training", "a", numbers())
    save(folder, "validation", "b", numbers(1))
    if seed % 5 == 4:
        text, done = damaged_text(json.dumps(CONFIG, indent=1), seed)
        (folder / "config_v2.0.json").write_text(text, encoding="utf-8")
        return done
    if seed % 5 == 3:
        random = np.random.RandomState(seed)
        made = numbers()
        made[random.randint(HEIGHT), random.randint(WIDTH)] = random.choice(
            [random.randint(65536), random.randint(1024)]
        )
        save(folder, "training", "a", made)
        save_config(folder)
        return "another number at a pixel"
    config, done = mutated(CONFIG, seed)
    save_config(folder, config)
    return done


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(500), marks=pytest.mark.slow)], ids=["30", "500"])
def test_mutated_data_sets_are_imported_right_or_refused(tmp_path, seeds):
    assert_right_or_refused(seeds, tmp_path, write_mutated, convert, oracle.read)
