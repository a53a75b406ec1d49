"""Masks in PASCAL VOC's layout: what the records hold, what is refused, and 500 broken exports."""

import io
import pathlib
import random
import shutil

import numpy as np
import pytest
from converters.oracles.voc import read_voc
from PIL import Image

from deeplab2_kmax.converters.importing.conversion import ImportRules, Shards
from deeplab2_kmax.converters.importing.voc_labels import voc_color
from deeplab2_kmax.converters.voc import WITHOUT_INSTANCE, convert_voc
from deeplab2_kmax.datasets import read_descriptor
from deeplab2_kmax.errors import DataError
from helpers.coco_export import truth_of
from helpers.imported import assert_all_fine, difference, outcome
from helpers.mutations import damaged_text
from helpers.shapes_truth import CLASSES, STUFF, scenes

NAMES = ["background", *(c.name for c in CLASSES.values())]
VOID = [224, 224, 192]


def colors():
    """VOC's colors of all indices: uint8 [256, 3]."""
    packed = np.array([voc_color(index) for index in range(256)])
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1).astype(np.uint8)


def save(path, numbers, kind):
    """Writes numbers as a PNG of one of the kinds rgb, palette or grey."""
    if kind == "rgb":
        Image.fromarray(colors()[numbers]).save(path)
        return
    image = Image.fromarray(numbers.astype(np.uint8))
    if kind == "palette":
        image.putpalette(colors().tobytes())
    image.save(path)


def write(folder, truth, kind="rgb", lists=None, label_map=True):
    """Writes scenes as CVAT does, which gives stuff instance numbers as well."""
    for each in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (folder / each).mkdir(parents=True)
    for scene in truth:
        scene.save(folder / "JPEGImages", ".jpg")
        classes = np.zeros(scene.label.shape, int)
        objects = np.zeros(scene.label.shape, int)
        for number, segment in enumerate(scene.segments, start=1):
            classes[segment.mask] = NAMES.index(segment.class_name)
            objects[segment.mask] = 0 if segment.is_crowd else number
        save(folder / "SegmentationClass" / f"{scene.name}.png", classes, kind)
        save(folder / "SegmentationObject" / f"{scene.name}.png", objects, kind)
    for name, part in (lists or {"default": truth}).items():
        text = "".join(f"{scene.name}\n" for scene in part)
        (folder / "ImageSets/Segmentation" / f"{name}.txt").write_text(text)
    if label_map:
        (folder / "labelmap.txt").write_text("\n".join(lines()) + "\n")


def lines():
    rows = [f"{name}:{','.join(map(str, color))}::" for name, color in zip(NAMES, colors().tolist())]
    return ["# label:color_rgb:parts:actions", *rows]


def convert(folder, rules=None, **options):
    shards = Shards(str(folder / "records"), num_processes=1)
    rules = rules or ImportRules(stuff_classes=STUFF)
    return convert_voc(str(folder / "own.json"), str(folder / "export"), shards, rules, **options)


@pytest.mark.parametrize("kind", ["rgb", "palette", "grey"])
def test_round_trip_of_scenes(tmp_path, kind, examples, label_of, capsys):
    truth = scenes()
    write(tmp_path / "export", truth, kind)
    rules = ImportRules(stuff_classes=STUFF, treat_crowd_as_ignore=False)
    found = examples(convert(tmp_path, rules))
    wrong = [difference(label_of(found[s.name]), tmp_path / "own.json", *truth_of(s)) for s in truth]
    assert wrong == [None] * 20
    descriptor = read_descriptor(tmp_path / "own.json")
    assert [(c.name, c.source_id, c.is_thing) for c in descriptor.classes] == [
        (name, index, name not in STUFF) for index, name in enumerate(NAMES) if index
    ]
    assert descriptor.classes[0].color == (128, 0, 0)
    crowds = sum(int(s.mask.sum()) for scene in truth for s in scene.segments if s.is_crowd)
    assert crowds > 0 and f"train: {WITHOUT_INSTANCE}: {crowds:,} in" in capsys.readouterr().out


def test_an_export_of_datumaro(tmp_path, examples, label_of):
    golden = pathlib.Path(__file__).parents[1] / "golden/importers/voc"
    truth = scenes(count=3, size=33, seed=11)
    shards = Shards(str(tmp_path / "records"), num_processes=1)
    paths = convert_voc(str(tmp_path / "own.json"), str(golden), shards, ImportRules(stuff_classes=STUFF))
    assert [p.rsplit("/", 1)[1].split("-")[0] for p in paths] == ["train", "val"]
    found = examples(paths)
    for scene in truth:
        names, instances = truth_of(scene)
        # Datumaro gives crowds a color of their own, as it does things.
        crowds = np.isin(names, [c.name for c in CLASSES.values() if c.is_thing]) & (instances == 0)
        expected = names, np.where(crowds, 1, instances)
        assert difference(label_of(found[scene.name]), tmp_path / "own.json", *expected) is None


def damage(folder, seed, truth):
    """Damages the label map, a list, or a PNG of an export; returns what was done."""
    draw = random.Random(seed)
    kind = draw.choice(("label map", "label map", "list", "bytes", "color", "color", "mode"))
    if kind in ("label map", "list"):
        name = "labelmap.txt" if kind == "label map" else f"ImageSets/Segmentation/{draw.choice(('train', 'val'))}.txt"
        text, done = damaged_text((folder / name).read_text(), seed)
        (folder / name).write_bytes(text.encode())
        return f"{name}: {done}"
    path = folder / f"Segmentation{draw.choice(('Class', 'Object'))}" / f"{draw.choice(truth).name}.png"
    if kind == "bytes":
        content = bytearray(path.read_bytes())
        place = draw.randrange(len(content))
        if draw.random() < 0.3:
            del content[place:]
        else:
            content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(content))
        return f"{path.name}: byte {place}"
    image = Image.open(path)
    if kind == "mode":
        mode = draw.choice(("L", "P", "RGBA", "RGB", "1", "LA", "CMYK"))
        encoded = io.BytesIO()
        image.convert(mode).save(encoded, "PNG" if mode != "CMYK" else "TIFF")
        path.write_bytes(encoded.getvalue())
        return f"{path}: mode {mode}"
    pixels = np.asarray(image.convert("RGB")).copy()
    color = draw.choice([*colors()[:12].tolist(), VOID, [1, 2, 3], [128, 128, 127]])
    top, left = draw.randrange(20), draw.randrange(20)
    pixels[top : top + 5, left : left + 9] = color
    if draw.random() < 0.2:
        pixels = pixels[:-1]
    Image.fromarray(pixels).save(path)
    return f"{path}: {color}, size {pixels.shape}"


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(500), marks=pytest.mark.slow)], ids=["30", "500"])
def test_broken_exports_are_imported_right_or_refused(tmp_path, seeds, examples, label_of):
    outcomes = {}
    truth = scenes(count=3, size=33, seed=11)
    for seed in seeds:
        folder = tmp_path / str(seed)
        kind = ("rgb", "palette", "grey")[seed % 3]
        write(folder / "export", truth, kind, lists={"train": truth[:2], "val": truth[2:]})
        done = damage(folder / "export", seed, truth)
        stuff = STUFF if seed % 2 else []
        result = outcome(
            lambda f=folder, s=stuff: convert(f, ImportRules(stuff_classes=s)),
            lambda f=folder, s=stuff: read_voc(f / "export", s),
            folder / "own.json",
            examples,
            label_of,
            ("export", "stuff_classes"),
        )
        outcomes[seed] = result, f"{kind}, {done}"
        shutil.rmtree(folder)
    assert_all_fine(outcomes, least_imported=len(seeds) // 10)


def tiny(folder, classes, objects=None, mode=None, label_map=None, palette=None):
    """An export of one picture "a" of 4 x 3 pixels, whose masks are given."""
    for each in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / "export" / each).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(folder / "export/JPEGImages/a.jpg")
    (folder / "export/ImageSets/Segmentation/train.txt").write_text("a\n")
    masks = {"Class": classes} if objects is None else {"Class": classes, "Object": objects}
    for kind, mask in masks.items():
        (folder / f"export/Segmentation{kind}").mkdir(exist_ok=True)
        image = Image.fromarray(np.array(mask, np.uint8), mode)
        if palette is not None and image.mode == "P":
            image.putpalette(palette)
        image.save(folder / f"export/Segmentation{kind}/a.png")
    if label_map is not None:
        (folder / "export/labelmap.txt").write_text(label_map)


ROWS = [[0, 0, 8, 8], [0, 15, 8, 255], [0, 0, 0, 255]]
OBJECTS = [[0, 0, 1, 2], [0, 3, 1, 255], [0, 0, 0, 255]]


@pytest.mark.parametrize("mode", ["P", "L"])
def test_classes_of_voc_are_known_without_a_label_map(tmp_path, mode, examples, label_of):
    tiny(tmp_path, ROWS, OBJECTS, mode, palette=colors().tobytes())
    label = label_of(examples(convert(tmp_path, ImportRules()))["a"])
    np.testing.assert_array_equal(label, [[0, 0, 8001, 8002], [0, 15001, 8001, 0], [0, 0, 0, 0]])
    descriptor = read_descriptor(tmp_path / "own.json")
    assert len(descriptor.classes) == 20 and all(c.is_thing for c in descriptor.classes)
    assert (descriptor.by_id[8].name, descriptor.by_id[15].name) == ("cat", "person")


def test_background_can_be_a_stuff_class(tmp_path, examples, label_of):
    tiny(tmp_path, ROWS, OBJECTS, "P", palette=colors().tobytes())
    label = label_of(examples(convert(tmp_path, ImportRules(background_class="background")))["a"])
    np.testing.assert_array_equal(label[2], [21000, 21000, 21000, 0])
    (tmp_path / "own.json").unlink()
    convert(tmp_path, ImportRules(background_class="floor"))
    assert read_descriptor(tmp_path / "own.json").by_id[21].name == "floor"


def test_without_instances_all_classes_are_stuff(tmp_path, examples, label_of, capsys):
    tiny(tmp_path, ROWS, None, "P", palette=colors().tobytes())
    label = label_of(examples(convert(tmp_path, ImportRules()))["a"])
    np.testing.assert_array_equal(label[0], [0, 0, 8000, 8000])
    assert "no SegmentationObject: all classes are stuff" in capsys.readouterr().out


def test_a_label_map_without_colors_has_those_of_voc(tmp_path, examples, label_of):
    tiny(tmp_path, ROWS, OBJECTS, "P", palette=colors().tobytes(), label_map="\n".join(f"{n}:::" for n in NAMES * 2))
    with pytest.raises(DataError, match="labelmap.txt: line 10: expected names and colors that differ"):
        convert(tmp_path)
    names = ["background", *(f"c{k}" for k in range(1, 20))]
    (tmp_path / "export/labelmap.txt").write_text("\n".join(f"{name}:::" for name in names))
    label = label_of(examples(convert(tmp_path, ImportRules()))["a"])
    np.testing.assert_array_equal(label[1], [0, 15001, 8001, 0])


def test_palettes_count_by_their_colors(tmp_path, examples, label_of):
    # As of programs that sort the palette by how often a color occurs.
    palette = bytes([0, 0, 0, 9, 9, 9, 7, 7, 7])
    mask = [[0, 1, 1, 2], [0, 1, 1, 2], [0, 0, 0, 2]]
    label_map = "cat:7,7,7::\ndog:9,9,9::\n"
    tiny(tmp_path, mask, mask, "P", label_map, palette)
    label = label_of(examples(convert(tmp_path, ImportRules()))["a"])
    np.testing.assert_array_equal(label[0], [0, 2001, 2001, 1001])
    tiny(tmp_path, mask, mask, "P", label_map, bytes([*palette[:6], 6, 6, 6]))
    message = r"Class/a.png: 3 pixels of the index 2 \(6,6,6\), the first at column 3, row 0: expected one of"
    with pytest.raises(DataError, match=message):
        convert(tmp_path, ImportRules())
    tiny(tmp_path, mask, mask, "P", label_map, bytes([9, 9, 9, 7, 7, 7, 0, 0, 0]))
    with pytest.raises(DataError, match=r"Object/a.png: expected a palette that begins with black"):
        convert(tmp_path, ImportRules())


REFUSED_MAPS = {
    "": "labelmap.txt: expected annotations, got an empty file",
    "# nothing\n": "labelmap.txt: expected lines such as cat:128,0,0::, got none",
    "cat\n": 'line 1: expected label:color:parts:actions, such as cat:128,0,0::, got "cat"',
    "\ncat:300,0,0::": 'line 2: expected a color such as 128,0,0, three numbers up to 255, got "300,0,0"',
    "cat:1,2::": 'line 1: expected a color such as 128,0,0, three numbers up to 255, got "1,2"',
    "cat:1,2,3::\ndog:1,2,3::": "line 2: expected names and colors that differ",
    "cat:1,2,3::\ndog:::": 'labelmap.txt: expected a color of each class or of none, got none of "dog"',
    "cat:1,2,3::": "Class/a.png: expected colors, as .*labelmap.txt does not say which number is 'background'",
    "background:0,0,0::\ncat:1,2,3::": r"Class/a.png: 1 pixel of the number 8, .* row 0: expected .* 0 to 1, or 255",
}


@pytest.mark.parametrize("text", REFUSED_MAPS)
def test_label_maps_that_are_refused(tmp_path, text):
    tiny(tmp_path, [[0, 0, 8, 1]] * 1 + [[0] * 4] * 2, OBJECTS, "L", text)
    with pytest.raises(DataError, match=REFUSED_MAPS[text]):
        convert(tmp_path, ImportRules())


def test_colors_that_are_in_no_label_map_are_counted_and_placed(tmp_path):
    mask = np.zeros((3, 4, 3), np.uint8)
    mask[1, 2:] = 1, 2, 3
    tiny(tmp_path, mask, mask, label_map="background:0,0,0::\ncat:128,0,0::\n")
    message = (
        r"Class/a.png: 2 pixels of the color 1,2,3, the first at column 2, row 1: expected one of .*labelmap.txt, "
        r"0,0,0 background; 128,0,0 cat$"
    )
    with pytest.raises(DataError, match=message):
        convert(tmp_path, ImportRules())


def test_lists_are_splits(tmp_path, examples, capsys):
    truth = scenes(count=5, size=33)
    lists = {"train": truth[:2], "val": truth[2:3], "trainval": truth[:4], "Test": truth[4:]}
    write(tmp_path / "export", truth, lists=lists)
    paths = convert(tmp_path)
    assert [p.rsplit("/", 1)[1].split("-")[0] for p in paths] == ["test", "train", "val"]
    assert list(examples(paths[2:])) == ["scene_02"]
    assert "1 of 4 pictures left out: in trainval, but not in train or val" in capsys.readouterr().out
    with pytest.raises(DataError, match="val_fraction: expected 0, as .*val.txt lists the pictures of val, got 0.5"):
        convert(tmp_path, val_fraction=0.5)
    (tmp_path / "export/ImageSets/Segmentation/train.txt").unlink()
    (tmp_path / "export/ImageSets/Segmentation/val.txt").unlink()
    assert len(convert(tmp_path, val_fraction=0.25)) == 3


def test_pictures_without_masks_are_left_out_and_those_that_are_not_there_refused(tmp_path, examples, capsys):
    truth = scenes(count=3, size=33)
    write(tmp_path / "export", truth)
    (tmp_path / "export/SegmentationClass/scene_01.png").unlink()
    assert list(examples(convert(tmp_path))) == ["scene_00", "scene_02"]
    assert "1 of 3 pictures left out: no PNG in" in capsys.readouterr().out
    (tmp_path / "export/SegmentationObject/scene_02.png").unlink()
    with pytest.raises(DataError, match=r'default.txt: line 3: expected "scene_02.png" in .*Object, as in Segm'):
        convert(tmp_path)
    (tmp_path / "export/JPEGImages/scene_00.jpg").unlink()
    with pytest.raises(DataError, match=r'default.txt: line 1: expected a picture "scene_00" in .*JPEGImages, wh'):
        convert(tmp_path)
    shutil.rmtree(tmp_path / "export/JPEGImages")
    with pytest.raises(DataError, match="JPEGImages: expected the folder of the pictures, .* or give --image_folder"):
        convert(tmp_path)
    shutil.rmtree(tmp_path / "export/ImageSets")
    with pytest.raises(DataError, match="Segmentation: expected this folder with lists such as train.txt, which"):
        convert(tmp_path)


def test_the_command_line_and_pictures_elsewhere(tmp_path, convert_by_command, capsys):
    write(tmp_path / "export", scenes(count=2, size=33))
    (tmp_path / "export/JPEGImages").rename(tmp_path / "photos")
    arguments = [f"--dataset={tmp_path}/own.json", f"--folder={tmp_path}/export", f"--output_dir={tmp_path}/records"]
    arguments += [f"--image_folder={tmp_path}/photos", f"--stuff_classes={','.join(STUFF)}", "--num_processes=1"]
    assert convert_by_command("voc", *arguments) == 0
    assert "train: 2 images" in capsys.readouterr().out
