"""Data sets in YOLO's format for segmentation."""

import numpy as np
import pytest
import yaml
from converters.oracles import yolo as oracle
from PIL import Image
from scipy import ndimage

from deeplab2_kmax.converters.importing.conversion import ImportRules, Shards
from deeplab2_kmax.converters.yolo import convert_yolo
from deeplab2_kmax.datasets import read_descriptor
from deeplab2_kmax.errors import DataError
from helpers.import_trials import assert_right_or_refused, labels_of_records, labels_of_scene, run_command
from helpers.imported import difference_of_maps
from helpers.mutations import damaged_text, mutated
from helpers.shapes_truth import DESCRIPTOR, STUFF, outlines, scenes

RULES = ImportRules()
SQUARE = "0 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5"
WHOLE = "1 0 0 1 0 1 1 0 1"
CONTENT = {"path": ".", "train": "images/train", "val": "images/val", "names": {0: "cat", 1: "mud"}}


def save(folder, split, name, lines, height=20, width=24):
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(folder / "images" / split / f"{name}.png")
    if lines is not None:
        (folder / "labels" / split / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def save_yaml(folder, **changes):
    content = {key: value for key, value in {**CONTENT, **changes}.items() if value is not None}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def tree(tmp_path):
    """Two pictures in train and one in val, 20 x 24."""
    save(tmp_path, "train", "a", [WHOLE, SQUARE])
    save(tmp_path, "train", "b", [SQUARE])
    save(tmp_path, "val", "c", [WHOLE])
    save_yaml(tmp_path)
    return tmp_path


def convert(folder, rules=RULES):
    dataset = str(folder / "own" / "descriptor.json")
    shards = Shards(str(folder / "records"), num_processes=1)
    return convert_yolo(dataset, str(folder / "data.yaml"), shards, rules), dataset


def labels(folder, rules=RULES):
    return labels_of_records(*convert(folder, rules))


def line_of(index, loop, scene):
    height, width = scene.label.shape
    return " ".join([str(index), *(f"{share:.17g}" for share in (np.reshape(loop, (-1, 2)) / [width, height]).ravel())])


def test_scenes_come_back(tmp_path):
    """An outline has one part and no holes, YOLO no crowds, and what has fewer pixels is on top; the rest is equal."""
    truth, names = scenes(), [c.name for c in DESCRIPTOR.classes]
    parts_of = {}
    for scene in truth:
        lines, parts_of[scene.name] = [], []
        for segment in scene.segments:
            for loop in [] if segment.is_crowd else outlines(segment.mask)[0]:
                lines.append(line_of(names.index(segment.class_name), loop, scene))
        save(tmp_path, "train", scene.name, lines, *scene.label.shape)
        scene.save(tmp_path / "images" / "train")
    save_yaml(tmp_path, val=None, names=names)
    found = labels(tmp_path, ImportRules(stuff_classes=STUFF))
    assert len(found) == 20
    wrong = pieces = 0
    for scene in truth:
        expected, instances = labels_of_scene(scene)
        got, got_instances = found[scene.name]
        # Below crowds and through holes one sees what encloses them.
        seen_through = np.zeros_like(expected, bool)
        for segment in scene.segments:
            seen_through |= ndimage.binary_fill_holes(segment.mask) & ~segment.mask
        off = got != expected
        assert not (off & ~seen_through).any(), scene.name
        wrong += int(off.sum())
        for segment in scene.segments:
            if segment.is_thing and not segment.is_crowd:
                extra = ndimage.label(segment.mask)[1] - 1
                pieces += extra
                if extra:  # Its parts are things of their own.
                    instances[segment.mask] = got_instances[segment.mask] + 10**6
                    got_instances = np.where(segment.mask, instances, got_instances)
        instances = np.where(off, got_instances, instances)
        assert not difference_of_maps(np.where(off, expected, got), got_instances, expected, instances), scene.name
    assert (wrong, pieces) == (257, 6)


def test_splits_classes_and_sizes(tree, capsys):
    found = labels(tree, ImportRules(stuff_classes=["mud"]))
    assert sorted(path.name[:5] for path in (tree / "records").glob("*.tfrecord")) == ["train", "val-0"]
    names, instances = found["a"]
    assert (names[5:10, 6:12] == "cat").all() and (names == "cat").sum() == 30 and (names == "mud").sum() == 450
    assert len(np.unique(instances[names == "cat"])) == 1 and not instances[names == "mud"].any()
    assert [(c.source_id, c.name, c.is_thing) for c in read_descriptor(tree / "own/descriptor.json").classes] == [
        (0, "cat", True),
        (1, "mud", False),
    ]
    assert "left out" not in capsys.readouterr().out


def test_pictures_without_labels_have_nothing_in_them(tree, capsys):
    save(tree, "train", "empty", [])
    save(tree, "train", "none", None)
    (tree / "labels/train/lost.txt").write_text(SQUARE)
    (tree / "labels/train/classes.txt").write_text("cat")
    found = labels(tree)
    assert set(found["empty"][0].ravel()) == set(found["none"][0].ravel()) == {""}
    out = capsys.readouterr().out
    assert "data.yaml: train: 1 of 4 pictures without a label file, so nothing is in them" in out
    assert "data.yaml: 1 label file of no picture of the splits: " in out and "lost.txt" in out
    for path in (tree / "labels/train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="data.yaml: train: expected label files such as .*/a.txt, got none"):
        convert(tree)


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/nowhere/at/all"},
        {"path": None, "train": "../images/train"},
        {"train": ["images/train"]},
        {"train": "list.txt"},
        {"train": "images\\train", "names": ["cat", "mud"], "nc": 2},
        {"test": "images/test"},
    ],
)
def test_pictures_are_found_by_folder_and_by_list(tree, changes, capsys):
    (tree / "list.txt").write_text("./images/train/a.png\nimages/train/b.png\n")
    save_yaml(tree, **changes)
    found = labels(tree)
    assert sorted(found) == ["a", "b", "c"] and (found["a"][0] == "cat").sum() == 30
    assert ("split test: left out" in capsys.readouterr().out) == ("test" in changes)


def test_pictures_below_folders_and_labels_beside_pictures(tmp_path):
    save(tmp_path, "train/day", "a", [SQUARE])
    save_yaml(tmp_path, val=None)
    assert (labels(tmp_path)["a"][0] == "cat").sum() == 30
    beside = tmp_path / "beside"
    (beside / "train").mkdir(parents=True)
    for kind, ending in (("images", "png"), ("labels", "txt")):
        (tmp_path / kind / "train/day" / f"a.{ending}").rename(beside / "train" / f"a.{ending}")
    save_yaml(beside, train="train", val=None)
    assert (labels(beside)["a"][0] == "cat").sum() == 30


@pytest.mark.parametrize(
    "line, reason",
    [
        ("0 0.5 0.5 0.2 0.2", "expected an outline, .*, got a box of 5 numbers; export the data set for segmentation"),
        ("0 0.5 0.5 0.2", "expected a class, and x and y of each point, got 4 numbers"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.9", "expected a class, and x and y of each point, got 8 numbers"),
        ("2 0.1 0.1 0.2 0.2 0.3 0.1", "expected a class from 0 to 1, as data.yaml names, got 2"),
        ("0.5 0.1 0.1 0.2 0.2 0.3 0.1", "expected a class from 0 to 1"),
        ("0 10 10 200 20 30 10", "expected shares of width and height, 0 to 1, got 10"),
        ("0 nan 0.1 0.2 0.2 0.3 0.1", 'expected numbers, got "nan"'),
        ("cat 0.1 0.1 0.2 0.2 0.3 0.1", 'expected numbers, got "cat"'),
    ],
)
def test_lines_of_another_kind_are_refused(tree, line, reason):
    (tree / "labels/train/b.txt").write_text(f"{SQUARE}\n\n{line}\n")
    with pytest.raises(DataError, match=f"labels/train/b.txt: line 3: {reason}"):
        convert(tree)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"names": ["cat", False]}, r"names\[1\]: expected a name, got false; write names between quotes"),
        ({"names": {1: "cat", 2: "mud"}}, "names: expected the numbers 0, 1, 2, ... as keys, got 1, 2"),
        ({"names": None}, "expected the field names, which is missing"),
        ({"names": ["cat", "cat"]}, "cannot write .* from its classes: .*own name"),
        ({"nc": 3}, "nc: expected the number of names, 2, got 3"),
        ({"train": "images/nowhere"}, 'train: expected a folder or a list of pictures in .*, got "images/nowhere"'),
        ({"val": [""]}, r'val\[0\]: expected a folder or a list of pictures, got ""'),
        ({"val": "labels"}, 'val: expected pictures, got "labels", where there are none'),
        ({"train": "list.txt"}, 'list.txt: line 1: expected a picture, got "a.png", which is not there'),
        ({"train": None, "val": None}, "expected the pictures of train, val, test, got none"),
        ({"kpt_shape": [17, 3]}, "kpt_shape: expected a data set of outlines, got one of keypoints"),
    ],
)
def test_mistakes_in_data_yaml_are_refused(tree, changes, reason):
    (tree / "list.txt").write_text("a.png\n")
    save_yaml(tree, **changes)
    with pytest.raises(DataError, match=reason):
        convert(tree)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("names: [cat\ntrain: x", "expected YAML, but it is cut off or broken at line 2"),
        ("names: [a]\nnames: [b]", 'expected keys that differ in an object, got "names" twice'),
        ("- a", r'expected a YAML object, got \["a"\]'),
        ("a: \0", "expected YAML, got characters, dates or nesting that are none of it"),
        ("a: 2024-99-99", "expected YAML, got characters, dates or nesting that are none of it"),
        ("? [a]\n: b", "expected YAML, but it is cut off or broken at line 1"),
        ("", "expected annotations, got an empty file"),
    ],
)
def test_files_that_are_no_yaml_are_named(tree, text, reason):
    (tree / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=f"data.yaml: {reason}"):
        convert(tree)


def test_the_command(tree):
    words = (f"--dataset={tree}/own.json", f"--data_yaml={tree}/data.yaml", "--stuff_classes=mud")
    found = labels_of_records(run_command("yolo", tree / "records", *words), tree / "own.json")
    assert found["c"][0][0, 0] == "mud" and not found["c"][1].any()


def write_mutated(folder, seed):
    lines = [WHOLE, SQUARE, "0 0.55 0.1 0.9 0.2 0.85 0.9 0.6 0.75", "1 .1 .6 .4 .6 4e-1 0.95"]
    save(folder, "train", "a", lines)
    save(folder, "train", "b", [])
    save(folder, "val", "c", lines[2:])
    if seed % 3 == 0:
        content, done = mutated({**CONTENT, "nc": 2}, seed)
        (folder / "data.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
        return done
    save_yaml(folder)
    path = folder / ("data.yaml" if seed % 3 == 1 and seed % 2 else "labels/train/a.txt")
    text, done = damaged_text(path.read_text(), seed)
    path.write_text(text)
    return f"{path.name}: {done}"


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(500), marks=pytest.mark.slow)], ids=["30", "500"])
def test_mutated_data_sets_are_imported_right_or_refused(tmp_path, seeds):
    assert_right_or_refused(seeds, tmp_path, write_mutated, convert, oracle.read)
