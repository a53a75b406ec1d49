"""Exports of CVAT become records: what an XML can hold comes in pixel by pixel, all else is refused or counted."""

import dataclasses
import itertools
import pathlib
import zipfile
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
from converters.oracles.cvat import read_cvat as by_oracle
from PIL import Image
from scipy import ndimage

from deeplab2_kmax.converters.cvat import convert_cvat
from deeplab2_kmax.converters.importing.conversion import ImportRules, Shards
from deeplab2_kmax.datasets import load_dataset, read_descriptor
from deeplab2_kmax.errors import DataError
from helpers.import_trials import assert_right_or_refused, labels_of_records, labels_of_scene, run_command
from helpers.imported import difference_of_maps
from helpers.mutations import mutated_xml
from helpers.shapes_truth import CLASSES, DESCRIPTOR, STUFF, outlines, scenes

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/importers/cvat"
LABELS = "".join(
    f"<label><name>{c.name}</name><color>#{c.color[0]:02x}{c.color[1]:02x}{c.color[2]:02x}</color><type>any</type>"
    "<attributes></attributes></label>"
    for c in CLASSES.values()
)


def document(images, labels=LABELS, version="1.1"):
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>{version}</version>\n  <meta>\n'
        f"    <task><id>3</id><name>job</name><mode>annotation</mode><labels>{labels}</labels></task>\n"
        f"    <dumped>2026-01-01 10:00:00.000000+00:00</dumped>\n  </meta>\n  {''.join(images)}\n</annotations>\n"
    )


def image_element(number, name, height, width, shapes, more=""):
    return (
        f'<image id="{number}" name={quoteattr(name)} {more}width="{width}" height="{height}">\n'
        + "\n".join(shapes)
        + "</image>\n"
    )


def mask_element(label, mask, attributes="", content=""):
    """As CVAT writes it: run lengths row by row within the smallest box."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    runs = [(inside, len(list(group))) for inside, group in itertools.groupby(box.ravel().tolist())]
    counts = [0] * bool(runs[0][0]) + [length for _, length in runs]
    return (
        f'<mask label="{label}" source="manual" occluded="0" rle="{", ".join(map(str, counts))}" left="{columns[0]}"'
        f' top="{rows[0]}" width="{box.shape[1]}" height="{box.shape[0]}" {attributes}>{content}</mask>'
    )


def polygon_element(label, outline, attributes="", content=""):
    points = ";".join(f"{x:.2f},{y:.2f}" for x, y in zip(outline[::2], outline[1::2]))
    return f'<polygon label="{label}" source="manual" occluded="0" points="{points}" {attributes}>{content}</polygon>'


def shapes_of(scene, with_masks):
    crowd = '<attribute name="is_crowd">true</attribute>'
    for number, segment in enumerate(scene.segments, start=1):
        content = crowd if segment.is_crowd else ""
        if with_masks:
            yield mask_element(segment.class_name, segment.mask, 'z_order="0"', content)
            continue
        for outline in outlines(segment.mask)[0]:
            yield polygon_element(segment.class_name, outline, f'z_order="{number}" group_id="{number}"', content)


def write_scenes(folder, found, with_masks):
    (folder / "images").mkdir(exist_ok=True)
    images = []
    for number, scene in enumerate(found):
        scene.save(folder / "images")
        images.append(image_element(number, f"{scene.name}.png", *scene.label.shape, shapes_of(scene, with_masks)))
    (folder / "annotations.xml").write_text(document(images))


def convert(folder, dataset=None, rules=None, **options):
    return convert_cvat(
        str(dataset or folder / "own.json"),
        str(folder / "images"),
        str(folder / "annotations.xml"),
        Shards(str(folder / "records"), num_processes=1),
        rules or ImportRules(),
        **options,
    )


@pytest.fixture
def labels_in(examples, label_of):
    return lambda paths: {name: label_of(example) for name, example in examples(paths).items()}


@pytest.mark.parametrize("with_masks", [True, False])
def test_round_trip(tmp_path, with_masks):
    found = scenes()
    write_scenes(tmp_path, found, with_masks)
    paths = convert(tmp_path, rules=ImportRules(stuff_classes=STUFF, treat_crowd_as_ignore=False))
    descriptor = read_descriptor(tmp_path / "own.json")
    assert [(c.name, c.is_thing, c.color) for c in descriptor.classes] == [
        (c.name, c.is_thing, c.color) for c in DESCRIPTOR.classes
    ]
    expected = found if with_masks else [without_holes(scene) for scene in found]
    got = labels_of_records(paths, tmp_path / "own.json")
    assert got.keys() == {scene.name for scene in expected}
    for scene in expected:
        assert not difference_of_maps(*got[scene.name], *labels_of_scene(scene, crowds_are_void=False))
    lost = sum(int((a.label != b.label).sum()) for a, b in zip(expected, found))
    assert lost == (0 if with_masks else LOST_IN_HOLES)


def without_holes(scene):
    """What polygons can hold: a segment covers what lies in its holes, if that is painted before, or void."""
    label = np.zeros_like(scene.label)
    for segment in scene.segments:
        label[ndimage.binary_fill_holes(segment.mask, np.ones((3, 3)))] = scene.label[segment.mask][0]
    return dataclasses.replace(scene, label=label)


# Pixels of void or of what is painted before, in holes of segments, over all scenes.
LOST_IN_HOLES = 10


@pytest.fixture
def small(tmp_path):
    """Writes images/a.png, 6 x 4 pixels, and an XML with the shapes that it is given."""
    (tmp_path / "images").mkdir()

    def write(*shapes, names=("a.png",), more="", **options):
        for name in names:
            (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
            Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "images" / name)
        images = [image_element(number, name, 4, 6, shapes, more) for number, name in enumerate(names)]
        (tmp_path / "annotations.xml").write_text(document(images, **options))
        return tmp_path

    return write


LABELS_CAR = (
    "<label><name>car</name></label><label><name>mud</name></label><label><name>nose</name><type>points</type></label>"
)


def box(label="car", left=0, top=0, right=2, bottom=2, more=""):
    return f'<box label="{label}" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}" {more}></box>'


def square(label="car", x=0, size=2, attributes=""):
    return polygon_element(label, [x, 0, x + size, 0, x + size, size, x, size], attributes)


def test_z_order_then_the_file_decides_what_is_on_top(small, labels_in):
    folder = small(square(x=0, attributes='z_order="1"'), square(x=1, size=3), square(x=3, size=3), labels=LABELS_CAR)
    (label,) = labels_in(convert(folder)).values()
    assert label[0].tolist() == [1001, 1001, 1002, 1003, 1003, 1003]


def test_a_group_is_one_thing_of_each_label(small, labels_in):
    one = 'group_id="7"'
    folder = small(
        square(x=0, attributes=one), square(x=2, attributes=one), square("mud", 4, 2, one), labels=LABELS_CAR
    )
    (label,) = labels_in(convert(folder)).values()
    assert label[0].tolist() == [1001, 1001, 1001, 1001, 2001, 2001]


def test_ellipses_are_filled_and_boxes_only_by_flag(small, labels_in):
    ellipse = '<ellipse label="car" cx="3" cy="2" rx="1.2" ry="3" rotation="90"></ellipse>'
    folder = small(ellipse, labels=LABELS_CAR)
    (label,) = labels_in(convert(folder)).values()
    assert label.astype(bool).tolist() == [[False] * 6, [True] * 6, [True] * 6, [False] * 6]
    folder = small(box(right=3), labels=LABELS_CAR)
    with pytest.raises(DataError, match=r"image 0 \(\"a.png\"\), box 0: expected an outline, got a box.*--boxes"):
        convert(folder)
    (label,) = labels_in(convert(folder, boxes=True)).values()
    assert label.astype(bool).sum() == 6
    folder = small(box(left=2, top=-1, right=4, bottom=5, more='rotation="90.00"'), labels=LABELS_CAR)
    (label,) = labels_in(convert(folder, boxes=True)).values()
    assert label.astype(bool).tolist() == [[False] * 6, [True] * 6, [True] * 6, [False] * 6]


def test_what_has_no_area_is_counted(small, labels_in, capsys):
    points = '<points label="nose" points="1,1;2,2"/>'
    folder = small(square(), points, points, '<tag label="car"/>', '<polyline label="car" points="1,1;2,2"/>')
    text = (folder / "annotations.xml").read_text().replace(LABELS, LABELS_CAR)
    (folder / "annotations.xml").write_text(
        text.replace("</annotations>", image_element(5, "b.png", 4, 6, [points]) + "</annotations>")
    )
    assert list(labels_in(convert(folder))) == ["a"]
    out = capsys.readouterr().out
    assert "annotations.xml: annotations without an area left out: 3 points, 1 polyline, 1 tag" in out
    assert "1 of 2 pictures left out: no region (--empty_images keeps them as pictures of nothing)" in out
    assert [c.name for c in read_descriptor(folder / "own.json").classes] == ["car", "mud"]


def test_shapes_outside_are_counted(small, labels_in, capsys):
    folder = small(square(attributes='outside="0"'), square(x=2, attributes='outside="1"'), labels=LABELS_CAR)
    (label,) = labels_in(convert(folder)).values()
    assert label[0].tolist() == [1001, 1001, 0, 0, 0, 0]
    assert "left out: 1 polygon marked as outside" in capsys.readouterr().out


def test_pictures_without_a_region_are_kept_by_flag(small, labels_in):
    folder = small(square(), names=("a.png", "b.png"), labels=LABELS_CAR)
    text = (folder / "annotations.xml").read_text()
    (folder / "annotations.xml").write_text(text[::-1].replace(square()[::-1], "", 1)[::-1])
    label = labels_in(convert(folder, rules=ImportRules(background_class="mud"), empty_images=True))
    assert set(label["b"].ravel()) == {2000} and set(label["a"].ravel()) == {1001, 2000}


def test_names_as_people_write_them(small, labels_in):
    labels = "<label><name>traffic light &amp; \u201esign\u201c</name></label>"
    folder = small(square("traffic light &amp; \u201esign\u201c"), names=("it's & 1 (2).png",), labels=labels)
    text = (folder / "annotations.xml").read_text(encoding="utf-8")
    (folder / "annotations.xml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert list(labels_in(convert(folder))) == ["it's & 1 (2)"]
    assert [c.name for c in read_descriptor(folder / "own.json").classes] == ["traffic light & \u201esign\u201c"]


def test_archives_are_named(small):
    folder = small(square())
    with zipfile.ZipFile(folder / "annotations.xml", "w") as archive:
        archive.writestr("annotations.xml", "<annotations/>")
    with pytest.raises(DataError, match="annotations.xml: expected annotations, got a ZIP archive; unpack it"):
        convert(folder)


def test_subsets_of_a_project_are_splits(small, labels_in, tmp_path):
    folder = small(square(), names=("Train/a.png",), more='subset="Train" task_id="1" ', labels=LABELS_CAR)
    text = (folder / "annotations.xml").read_text().replace('name="Train/a.png"', 'name="a.png"')
    more = []
    for number, (subset, task) in enumerate((("Validation", 2), ("default", 3))):
        (folder / "images" / subset).mkdir()
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(folder / "images" / subset / "a.png")
        more.append(image_element(number, "a.png", 4, 6, [square()], f'subset="{subset}" task_id="{task}" '))
    (folder / "annotations.xml").write_text(text.replace("</annotations>", "".join(more) + "</annotations>"))
    paths = convert(folder, split="rest")
    assert sorted(path.rpartition("/")[2].split("-")[0] for path in paths) == ["rest", "train", "val"]


def test_frames_of_a_video_and_folders_in_names(small, labels_in):
    folder = small(square(), names=("frame_000001.PNG", "cam 1/b.png"), labels=LABELS_CAR)
    text = (folder / "annotations.xml").read_text().replace("frame_000001.PNG", "frame_000001")
    (folder / "annotations.xml").write_text(text.replace("cam 1/", "cam 1\\"))
    assert list(labels_in(convert(folder))) == ["frame_000001", "b"]


def test_numbers_behind_a_dot_are_no_endings(small, labels_in):
    folder = small(square(), names=("clip.0002.png", "clip.0004.png"), labels=LABELS_CAR)
    text = (folder / "annotations.xml").read_text()
    (folder / "annotations.xml").write_text(text.replace(".png", ""))
    (folder / "images/clip.0004.png").rename(folder / "images/clip.0004")
    assert sorted(labels_in(convert(folder))) == ["clip.0002", "clip.0004"]


def test_an_existing_descriptor_is_used_by_name(small, labels_in):
    folder = small(square("circle"))
    shapes = load_dataset("shapes")
    (label,) = labels_in(convert(folder, "shapes")).values()
    (circle,) = [c for c in shapes.classes if c.name == "circle"]
    assert label[0, 0] == circle.id * shapes.label_divisor + 1


def test_pictures_are_split(small):
    folder = small(square(), names=("a.png", "b.png", "c.png", "d.png"), labels=LABELS_CAR)
    paths = convert(folder, val_fraction=0.25)
    assert sorted(path.rpartition("/")[2].split("-")[0] for path in paths) == ["train", "val"]


SQUARE = square()
REFUSED = {
    "no such picture": ({"replace": ('name="a.png"', 'name="z.png"')}, r"\(\"z.png\"\): expected the picture z.png in"),
    "another size": ({"replace": ('width="6"', 'width="7"')}, r"expected a picture of 7 x 4 pixels.*got 6 x 4"),
    "track": (
        {"replace": ("</annotations>", '<track id="0" label="car"/></annotations>')},
        "track 0: expected pictures, got a track",
    ),
    "version": ({"replace": (">1.1<", ">1.0<")}, 'expected version 1.1 of CVAT\'s format, got "1.0"'),
    "cut off": (
        {"replace": ("</annotations>", "")},
        r"expected XML, but it is cut off or broken at line \d+, column \d",
    ),
    "entities": (
        {"replace": ("<annotations>", '<!DOCTYPE a [<!ENTITY x "y">]><annotations>')},
        "expected annotations wi",
    ),
    "another root": (
        {"replace": ("annotations>", "annotation>")},
        "expected XML with the root <annotations>, got <anno",
    ),
    "unknown label": ({"shape": square("cart")}, "polygon 0: label: expected one of the labels.*'car'"),
    "label of points": (
        {"shape": square("nose")},
        "label: expected one of the labels of <meta> for masks and polygons",
    ),
    "unknown shape": ({"shape": '<blob label="car"/>'}, "blob 0: expected one of mask, polygon"),
    "cuboid": ({"shape": '<cuboid label="car" xtl1="1"/>'}, "expected an outline, got a cuboid"),
    "point": ({"shape": SQUARE.replace("0.00,0.00;", "0.00;")}, 'points: expected x,y of each point, got "0.00"'),
    "number": ({"shape": SQUARE.replace("2.00,0.00", "2.00,nan")}, 'points: expected a number, got "nan"'),
    "two points": ({"shape": polygon_element("car", [0, 0, 2, 2])}, "polygon of at least 3 points"),
    "far outside": ({"shape": square(x=20)}, "expected points of the picture, 6 x 4 pixels, got x = 22"),
    "group": ({"shape": square(attributes='group_id="1.5"')}, 'group_id: expected a whole number, got "1.5"'),
    "runs": ({"shape": '<mask label="car" rle="1, 2" left="0" top="0" width="2" height="2"/>'}, "4 pixels, got 3"),
    "mask outside": (
        {"shape": '<mask label="car" rle="4" left="5" top="0" width="2" height="2"/>'},
        "mask within the pi",
    ),
    "unknown field": (
        {"shape": SQUARE.replace("></p", "><atribute/></p")},
        "polygon 0: expected <attribute>, got <atribu",
    ),
    "no rle": ({"shape": '<mask label="car" left="5" top="0" width="2" height="2"/>'}, "expected the attribute rle"),
    "flat ellipse": ({"shape": '<ellipse label="car" cx="1" cy="1" rx="-1" ry="1"/>'}, "ellipse 0: expected a radius"),
    "upside down": ({"shape": box(bottom=-1)}, "expected xtl < xbr"),
    "occluded": (
        {"shape": SQUARE.replace('occluded="0"', 'occluded="maybe"')},
        'occluded: expected 0 or 1, got "maybe"',
    ),
    "color": (
        {"replace": ("<name>mud</name>", "<name>mud</name><color>red</color>")},
        "expected a color such as #ff0080",
    ),
    "label type": (
        {"replace": ("<name>mud</name>", "<name>mud</name><type>blob</type>")},
        "expected a type, one of any",
    ),
    "line break": (
        {"replace": ("<name>mud</name>", "<name>mu&#10;d</name>")},
        r'labels 0, label 1: .* name, got "mu.nd"',
    ),
    "label twice": ({"replace": ("<name>mud</name>", "<name>car</name>")}, 'names of labels that differ, got "car"'),
    "no labels": ({"replace": ("labels>", "lables>")}, "expected labels for masks or polygons in <meta>, got 0 other"),
    "nothing": ({"shape": '<tag label="car"/>'}, "expected at least one annotated picture"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_named(small, case):
    what, message = REFUSED[case]
    folder = small(what.get("shape", SQUARE), labels=LABELS_CAR)
    text = (folder / "annotations.xml").read_text()
    (folder / "annotations.xml").write_text(text.replace(*what["replace"]) if "replace" in what else text)
    with pytest.raises(DataError, match=message) as error:
        convert(folder, boxes=case == "upside down")
    assert f"{folder / 'annotations.xml'}: " in str(error.value) and "\n" not in str(error.value)


def test_the_same_picture_twice_is_refused(small):
    folder = small(SQUARE, names=("a.png", "a.png"), labels=LABELS_CAR)
    with pytest.raises(
        DataError, match=r"image 1 \(\"a.png\"\): expected pictures that differ, got the same name a.png"
    ):
        convert(folder)


def test_what_datumaro_has_written(tmp_path, labels_in):
    (scene,) = scenes(count=1, size=33, seed=3)
    (tmp_path / "images").mkdir()
    scene.save(tmp_path / "images", ".jpg")
    (tmp_path / "annotations.xml").write_text((GOLDEN / "annotations.xml").read_text())
    paths = convert(tmp_path, rules=ImportRules(stuff_classes=STUFF))
    names, instances = labels_of_scene(scene)
    names[2:8, 2:9], instances[2:8, 2:9] = "circle", 99
    got = labels_of_records(paths, tmp_path / "own.json")["scene_00"]
    assert not difference_of_maps(*got, names, instances)


@pytest.fixture
def fuzz(tmp_path):
    """Runs the importer on the mutations of some seeds."""
    found = scenes(count=3, size=33, seed=3)
    write_scenes(tmp_path, found, True)
    images = []
    for number, scene in enumerate(found):
        shapes = list(shapes_of(scene, with_masks=number != 1))
        if number == 2:
            shapes += [
                '<ellipse label="circle" cx="9.5" cy="12.25" rx="5.00" ry="3.50" rotation="30.00" z_order="3"/>',
                box("square", 12, 3, 20, 9, 'z_order="2" rotation="15.00"'),
                '<tag label="circle"/>',
            ]
        images.append(image_element(number, f"{scene.name}.png", *scene.label.shape, shapes))
    text = document(images)

    def mutate(folder, seed):
        (folder / "images").symlink_to(tmp_path / "images")
        mutated, done = mutated_xml(text, seed)
        (folder / "annotations.xml").write_text(mutated)
        return done

    def run(folder):
        dataset = folder / "own" / "descriptor.json"
        return convert(folder, dataset, ImportRules(stuff_classes=STUFF[:1]), boxes=True), dataset

    def oracle(folder):
        return by_oracle(folder / "annotations.xml", boxes=True, stuff_names=STUFF[:1])

    return lambda seeds: assert_right_or_refused(seeds, tmp_path, mutate, run, oracle)


def test_mutated_files_are_imported_right_or_refused(fuzz):
    fuzz(range(30))


@pytest.mark.slow
def test_many_mutated_files(fuzz):
    fuzz(range(500))


def test_the_command(small):
    folder = small(SQUARE, labels=LABELS_CAR)
    words = [
        f"--image_folder={folder / 'images'}",
        f"--annotations={folder / 'annotations.xml'}",
        "--stuff_classes=mud",
    ]
    paths = run_command("cvat", folder / "records", f"--dataset={folder / 'own.json'}", *words)
    assert [path.name for path in paths] == ["train-00000-of-00001.tfrecord"]
    assert [(c.name, c.is_thing) for c in read_descriptor(folder / "own.json").classes] == [
        ("car", True),
        ("mud", False),
    ]
