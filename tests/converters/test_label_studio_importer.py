"""Exports of Label Studio become records: brush masks and polygons come in, what is wrong or ambiguous is named."""

import base64
import io
import json
import pathlib

import numpy as np
import pytest
from converters.oracles.label_studio import read_label_studio as by_oracle
from PIL import Image
from scipy import ndimage

from deeplab2_kmax.converters.importing.brush_runs import decoded_brush, encoded_brush
from deeplab2_kmax.converters.importing.conversion import ImportRules, Shards
from deeplab2_kmax.converters.label_studio import convert_label_studio
from deeplab2_kmax.datasets import read_descriptor
from deeplab2_kmax.errors import DataError
from helpers.import_trials import assert_right_or_refused, labels_of_records, labels_of_scene, run_command
from helpers.imported import difference_of_maps
from helpers.mutations import mutated
from helpers.shapes_truth import STUFF, outlines, scenes

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/importers/label_studio"


def task(number, image, results, **fields):
    """As Label Studio exports it."""
    annotation = {"id": 100 + number, "completed_by": 1, "result": results, "was_cancelled": False, **fields}
    content = {"id": number, "annotations": [annotation], "drafts": [], "predictions": [{"result": "not read"}]}
    return {**content, "data": {"image": image}, "meta": {}, "project": 1}


def result(kind, value, height, width, name="r1"):
    head = {"original_width": width, "original_height": height, "image_rotation": 0, "id": name}
    return {**head, "value": value, "from_name": "label", "to_name": "image", "type": kind, "origin": "manual"}


def brush(label, mask):
    """As the browser writes it: the RGBA picture of the brush, colors and all, in runs and single values."""
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[mask] = (255, 136, 0, 255)
    values = pixels.ravel().tolist()
    bits, at, widths = f"{len(values):032b}{7:05b}" + "".join(f"{w - 1:04b}" for w in (3, 4, 8, 16)), 0, (3, 4, 8, 16)
    while at < len(values):
        end = at
        while end < min(len(values), at + 65536) and values[end] == values[at]:
            end += 1
        is_run = end - at > 1
        if not is_run:
            while end < min(len(values) - 1, at + 256) and values[end] != values[end + 1]:
                end += 1
        choice = next(place for place, width in enumerate(widths) if end - at <= 1 << width)
        bits += f"{is_run:b}{choice:02b}{end - at - 1:0{widths[choice]}b}"
        bits += "".join(f"{value:08b}" for value in (values[at : at + 1] if is_run else values[at:end]))
        at = end
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]
    return result("brushlabels", {"format": "rle", "rle": rle, "brushlabels": [label]}, *mask.shape)


def polygon(label, outline, height, width):
    points = [[100 * x / width, 100 * y / height] for x, y in zip(outline[::2], outline[1::2])]
    return result("polygonlabels", {"points": points, "closed": True, "polygonlabels": [label]}, height, width)


def results_of(scene, kind):
    """A scene's regions; crowds as a class that is void, as Label Studio knows no crowds."""
    for segment in scene.segments:
        label = "crowd" if segment.is_crowd else segment.class_name
        if kind == "brush":
            yield brush(label, segment.mask)
        else:
            yield from (polygon(label, outline, *segment.mask.shape) for outline in outlines(segment.mask)[0])


def write_scenes(folder, found, kind):
    (folder / "photos").mkdir(exist_ok=True)
    tasks = []
    for number, scene in enumerate(found):
        scene.save(folder / "photos")
        tasks.append(task(number, f"/data/upload/1/{number:08x}-{scene.name}.png", list(results_of(scene, kind))))
    (folder / "export.json").write_text(json.dumps(tasks))
    return tasks


def convert(folder, rules=None, **options):
    dataset = folder / "own" / "descriptor.json"
    paths = convert_label_studio(
        str(dataset),
        str(folder / "photos"),
        str(folder / "export.json"),
        Shards(str(folder / "records"), num_processes=1),
        rules or ImportRules(),
        **options,
    )
    return paths, dataset


def labels(folder, *arguments, **options):
    return labels_of_records(*convert(folder, *arguments, **options))


@pytest.mark.parametrize("kind", ["brush", "polygon"])
def test_round_trip(tmp_path, kind):
    found = scenes()
    write_scenes(tmp_path, found, kind)
    got = labels(tmp_path, ImportRules(stuff_classes=STUFF, void_classes=["crowd"]))
    assert got.keys() == {scene.name for scene in found}
    lost = parts_lost = 0
    for scene in found:
        truth = labels_of_scene(scene)
        expected, parts = (truth, 0) if kind == "brush" else as_polygons(scene)
        assert not difference_of_maps(*got[scene.name], *expected), scene.name
        lost, parts_lost = lost + int((expected[0] != truth[0]).sum()), parts_lost + parts
    # Pixels in holes of segments, and things that come apart, as a polygon of Label Studio has neither holes nor parts.
    assert (lost, parts_lost) == ((0, 0) if kind == "brush" else (9, 6))


def as_polygons(scene):
    """((class names, instances) that polygons can hold, the number of parts of things that become things)."""
    names, instances = np.full(scene.label.shape, "", object), np.zeros(scene.label.shape, int)
    number = extra = 0
    for segment in scene.segments:
        parts, count = ndimage.label(segment.mask)
        extra += (count - 1) * (segment.is_thing and not segment.is_crowd)
        for part in range(1, count + 1):
            filled = ndimage.binary_fill_holes(parts == part, np.ones((3, 3)))
            number += 1
            names[filled] = "" if segment.is_crowd else segment.class_name
            instances[filled] = number if segment.is_thing and not segment.is_crowd else 0
    return (names, instances), extra


def test_what_the_sdk_has_written(tmp_path):
    (scene,) = scenes(count=1, size=33, seed=3)
    (tmp_path / "photos").mkdir()
    scene.save(tmp_path / "photos")
    (tmp_path / "export.json").write_text((GOLDEN / "export.json").read_text())
    got = labels(tmp_path, ImportRules(stuff_classes=["sky", "water"]))["scene_00"]
    assert not difference_of_maps(*got, *labels_of_scene(scene))


@pytest.mark.parametrize("fill", ["nothing", "all", "noise", "lines"])
def test_brush_runs_that_are_written_are_read(fill):
    mask = np.zeros((150, 131), bool)
    mask[:] = {"nothing": 0, "all": 1, "lines": np.arange(150)[:, None] % 2}.get(fill, mask)
    mask |= (fill == "noise") & (np.random.RandomState(0).rand(*mask.shape) > 0.5)
    np.testing.assert_array_equal(decoded_brush(bytes(encoded_brush(mask)), *mask.shape, "a"), mask)


HALF = np.zeros((4, 6), bool)
HALF[:, :3] = True


@pytest.fixture
def small(tmp_path):
    """Writes photos/a.png, 6 x 4 pixels, and an export of the tasks, or of one with the results, that it is given."""
    (tmp_path / "photos").mkdir()

    def write(*content, names=("a.png",)):
        for name in names:
            (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
            Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "photos" / name)
        tasks = content if "data" in content[0] else [task(1, "a.png", list(content))]
        (tmp_path / "export.json").write_text(json.dumps(tasks))
        return tmp_path

    return write


def bitmask(label, mask):
    """As Label Studio writes it: black on a transparent ground."""
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[mask] = (0, 0, 0, 255)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
    return result("bitmasklabels", {"imageDataURL": url, "bitmasklabels": [label]}, *mask.shape)


def test_bitmasks(small):
    names, _ = labels(small(bitmask("car", HALF)))["a"]
    np.testing.assert_array_equal(names == "car", HALF)
    with pytest.raises(DataError, match=r"expected a mask of 6 x 4 pixels, as the annotations say, got 5 x 4"):
        convert(small(changed(bitmask("car", HALF[:, :5]), original_width=6)))


def test_later_regions_are_on_top_and_each_is_a_thing(small):
    square = polygon("car", [2, 0, 4, 0, 4, 4, 2, 4], 4, 6)
    names, instances = labels(small(brush("car", HALF), square))["a"]
    assert names[0].tolist() == ["car"] * 4 + [""] * 2 and instances[0].tolist() == [1001, 1001, 1002, 1002, 0, 0]


def test_ellipses_are_filled_and_rectangles_only_by_flag(small):
    value = {"x": 50, "y": 50, "radiusX": 20, "radiusY": 75, "rotation": 90, "ellipselabels": ["car"]}
    names, _ = labels(small(result("ellipselabels", value, 4, 6)))["a"]
    assert [set(row) for row in names.tolist()] == [{""}, {"car"}, {"car"}, {""}]
    value = {"x": 50, "y": 0, "width": 50, "height": 50, "rotation": 90, "rectanglelabels": ["car"]}
    folder = small(result("rectanglelabels", value, 4, 6))
    with pytest.raises(
        DataError, match=r"\[0\].annotations\[0\].result\[0\].value: expected an outline, got a rect.*--box"
    ):
        convert(folder)
    names, _ = labels(folder, boxes=True)["a"]  # Turned about its upper left corner, 3 x 2 pixels become 2 x 3.
    assert (names == "car").tolist() == [[False, True, True, False, False, False]] * 3 + [[False] * 6]


SOURCES = {
    "a.png": "a.png",
    "/data/upload/3/0123abcd-a.png": "a.png",
    "/data/upload/3/0123abcd-kept.png": "0123abcd-kept.png",
    "/data/local-files/?d=set%201/b.png": "set 1/b.png",
    "s3://bucket/set 1/b.png": "set 1/b.png",
    "https://host.org/x/y/caf%C3%A9.png?token=1": "caf\u00e9.png",
    "/tasks/7/resolve/?fileuri=" + base64.b64encode(b"gs://bucket/z/b.png").decode(): "b.png",
}


@pytest.mark.parametrize("source", SOURCES)
def test_pictures_are_found_by_what_paths_and_urls_end_with(small, source):
    name = SOURCES[source]
    found = labels(small(task(1, source, [brush("car", HALF)]), names=(name,)))
    assert list(found) == [pathlib.Path(name).stem]


def test_labels_of_their_own_list(small, capsys):
    value = brush("car", HALF)["value"]
    plain = {**result("brush", {"format": "rle", "rle": value["rle"]}, 4, 6), "id": "x"}
    named = {**result("labels", {"format": "rle", "rle": value["rle"], "labels": ["car"]}, 4, 6), "id": "x"}
    point = {"x": 10, "y": 20, "width": 1}
    plain_point = {**result("keypoint", point, 4, 6), "id": "y"}
    named_point = {**result("labels", {**point, "labels": ["nose"]}, 4, 6), "id": "y"}
    choice = {**result("choices", {"choices": ["good"]}, 4, 6), "id": "x"}  # An answer about the region x.
    _, instances = labels(small(plain, named, plain_point, named_point, choice))["a"]
    assert sorted(np.unique(instances)) == [0, 1001]
    assert "annotations without an area left out: 1 choices, 1 keypoint" in capsys.readouterr().out


def test_one_annotation_of_a_task_counts(small, capsys):
    first, other = task(1, "a.png", [brush("car", HALF)]), task(2, "a.png", [brush("mud", HALF)])
    (second,) = other["annotations"]
    first["annotations"].insert(0, second)
    folder = small(first)
    assert labels(folder)["a"][0][0, 0] == "mud"  # It has the higher id.
    assert (
        "1 picture annotated more than once, of which the ground truth is taken, or what was submi"
        in capsys.readouterr().out
    )
    first["annotations"][1]["ground_truth"] = True
    small(first)
    (folder / "own" / "descriptor.json").unlink()
    assert labels(folder)["a"][0][0, 0] == "car"
    second["was_cancelled"], first["annotations"][1]["ground_truth"] = True, False
    small(first)
    assert labels(folder)["a"][0][0, 0] == "car"


def test_what_is_submitted_empty_is_void_and_the_rest_left_out(small, capsys):
    choice = {**result("choices", {"choices": ["good"]}, 4, 6)}
    skipped = task(4, "d.png", [], was_cancelled=True)
    tasks = [task(1, "a.png", [brush("car", HALF)]), task(2, "b.png", [choice, choice]), skipped]
    folder = small(*tasks, {"id": 5, "annotations": [], "data": {"image": "d.png"}}, names=("a.png", "b.png"))
    found = labels(folder)
    assert list(found) == ["a", "b"] and set(found["b"][0].ravel()) == {""}
    out = capsys.readouterr().out
    assert "export.json: annotations without an area left out: 2 choices" in out
    assert "2 of 4 pictures left out: no submitted annotation in" in out


def test_the_key_of_the_picture(small):
    tasks = [task(1, "a.png", [brush("car", HALF)])]
    tasks[0]["data"] = {"text": "a photo", "photo": "a.png", "mask": "b.png"}
    folder = small(*tasks)
    with pytest.raises(DataError, match="expected the field image, or one field with a picture, got photo, mask; give"):
        convert(folder)
    assert list(labels(folder, image_key="photo")) == ["a"]
    del tasks[0]["data"]["mask"]
    assert list(labels(small(*tasks))) == ["a"]


def changed(found, **fields):
    return {**found, **fields}


def with_value(found, **fields):
    return {**found, "value": {**found["value"], **fields}}


BRUSH = brush("car", HALF)
RLE = BRUSH["value"]["rle"]
POLYGON = polygon("car", [0, 0, 2, 0, 2, 2], 4, 6)
REFUSED = {
    "no picture": (
        task(1, "z.png", [BRUSH]),
        r'\[0\].data: image: expected a picture in .*photos of the name of "z.png"',
    ),
    "no URL": (task(1, "http://[::1/a.png", [BRUSH]), r'data: image: expected a path or URL, got "http:'),
    "line break": (with_value(BRUSH, brushlabels=["a\nb"]), r'value: brushlabels: expected a name, got "a\\nb"'),
    "number as label": (with_value(BRUSH, brushlabels=[3]), "value: brushlabels: expected a name, got 3"),
    "a picture itself": (
        task(1, "data:image/png;base64,xx", [BRUSH]),
        "path or URL of a picture, got the picture itself",
    ),
    "another size": (
        changed(BRUSH, original_width=7),
        "run lengths of 7 x 4 pixels, 112 values, got them of 96|of 7 x 4",
    ),
    "sizes": (BRUSH, "expected regions of one size in an annotation, got another", changed(POLYGON, original_width=7)),
    "pictures": (BRUSH, "regions of one picture .to_name. in an annotation", changed(POLYGON, to_name="image2")),
    "turned": (changed(BRUSH, image_rotation=90), "image_rotation: expected 0, got 90; turn the picture file"),
    "pages": (changed(BRUSH, item_index=1), "item_index: expected tasks of one picture each"),
    "min": (
        {"data": {"image": "a.png"}, "label": []},
        "expected the field annotations, which is missing; is this JSON-MIN",
    ),
    "kind": (changed(BRUSH, type="videorectangle"), 'expected one of brushlabels, bitmasklabels.*got "videorectangle"'),
    "no label": (changed(BRUSH, type="brush"), r"value: brush: expected one label, got \[\]; label it"),
    "two labels": (
        with_value(BRUSH, brushlabels=["car", "mud"]),
        r'brushlabels: expected one label, got \["car", "mud"\]',
    ),
    "format": (with_value(BRUSH, format="png"), 'format: expected rle, got "png"'),
    "cut off": (
        with_value(BRUSH, rle=RLE[:-1]),
        "expected run lengths up to the last pixel, got a list that is cut off",
    ),
    "too long": (with_value(BRUSH, rle=[*RLE, 0, 0]), "expected run lengths that end with the last pixel, got more"),
    "no byte": (with_value(BRUSH, rle=[*RLE[:-1], 256]), "rle: expected whole numbers from 0 to 255, got 256 at place"),
    "no whole": (with_value(BRUSH, rle=[*RLE[:-1], 0.5]), "rle: expected whole numbers"),
    "true": (
        with_value(BRUSH, rle=[*RLE[:3], True, *RLE[4:]]),
        "rle: expected whole numbers from 0 to 255, got true at",
    ),
    "of others": (
        with_value(BRUSH, rle=[0, 0, 0, 9, *RLE[4:]]),
        "run lengths of 6 x 4 pixels, 96 values, got them of 9",
    ),
    "long values": (
        with_value(BRUSH, rle=[*RLE[:4], 255, *RLE[5:]]),
        "expected run lengths of values of 8 bits, got 32",
    ),
    "no PNG": (
        with_value(bitmask("car", HALF), imageDataURL="data:image/gif;base64,x"),
        "imageDataURL: expected data:im",
    ),
    "open": (with_value(POLYGON, closed=False), "closed: expected a closed polygon, got one that was not finished"),
    "point": (
        with_value(POLYGON, points=[[0, 0], [1], [2, 2]]),
        r"points\[1\]: expected x and y of a point, got \[1\]",
    ),
    "outside": (with_value(POLYGON, points=[[0, 0], [200, 0], [2, 2]]), "expected points of the picture, 6 x 4 pixels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_named(small, case):
    first, message, *more = REFUSED[case]
    folder = small(first, *more)
    with pytest.raises(DataError, match=message) as error:
        convert(folder)
    assert f"{folder / 'export.json'}[0]" in str(error.value) and "\n" not in str(error.value)


def test_more_that_is_refused(small):
    tasks = [task(1, "a.png", [BRUSH]), task(2, "/data/upload/1/00000000-a.png", [BRUSH])]
    with pytest.raises(
        DataError, match=r"json\[1\]: expected tasks of pictures that differ, .*json\[0\] has .*a.png as"
    ):
        convert(small(*tasks))
    tasks[0]["annotations"] *= 2
    with pytest.raises(DataError, match=r"expected annotations of a task to have ids that differ, got \[101, 101\]"):
        convert(small(*tasks[:1]))
    folder = small(*tasks[:1])
    (folder / "export.json").write_text(json.dumps(tasks[0]))
    with pytest.raises(DataError, match="export.json: expected a list of tasks, got an object"):
        convert(folder)


@pytest.fixture
def fuzz(tmp_path):
    """Runs the importer on the mutations of some seeds."""
    found = scenes(count=3, size=33, seed=3)
    tasks = write_scenes(tmp_path, found[:2], "polygon")
    size = found[2].label.shape
    found[2].save(tmp_path / "photos")
    shapes = [brush(s.class_name, s.mask) for s in found[2].segments if s.is_thing]
    ellipse = {"x": 30, "y": 40, "radiusX": 15.5, "radiusY": 9, "rotation": 30, "ellipselabels": ["circle"]}
    box = {"x": 50, "y": 20.5, "width": 31, "height": 12, "rotation": 0, "rectanglelabels": ["square"]}
    shapes.append(bitmask("star", found[2].segments[-1].mask))
    shapes += [result("ellipselabels", ellipse, *size), result("rectanglelabels", box, *size)]
    tasks.append(task(2, f"s3://bucket/{found[2].name}.png", [*shapes, result("choices", {"choices": ["a"]}, *size)]))

    def write_mutated(folder, seed):
        (folder / "photos").symlink_to(tmp_path / "photos")
        content, done = mutated(tasks, seed)
        (folder / "export.json").write_text(json.dumps(content))
        return done

    return lambda seeds: assert_right_or_refused(
        seeds,
        tmp_path,
        write_mutated,
        lambda folder: convert(folder, ImportRules(stuff_classes=STUFF[:1]), boxes=True),
        lambda folder: by_oracle(folder / "export.json", boxes=True, stuff_names=STUFF[:1]),
    )


def test_mutated_files_are_imported_right_or_refused(fuzz):
    fuzz(range(30))


@pytest.mark.slow
def test_many_mutated_files(fuzz):
    fuzz(range(500))


def test_the_command(small):
    folder = small(BRUSH)
    words = [f"--image_folder={folder / 'photos'}", f"--annotations={folder / 'export.json'}", "--stuff_classes=car"]
    paths = run_command("label_studio", folder / "records", f"--dataset={folder / 'own.json'}", *words)
    assert [path.name for path in paths] == ["train-00000-of-00001.tfrecord"]
    assert [(c.name, c.is_thing) for c in read_descriptor(folder / "own.json").classes] == [("car", False)]
