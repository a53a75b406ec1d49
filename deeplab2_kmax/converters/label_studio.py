r"""Converts what Label Studio exports as "JSON" to TFRecords.

    deeplab2-kmax convert label_studio --dataset=my/dataset.json --image_folder=my/photos --annotations=my/export.json \
        --stuff_classes=road,sky --output_dir=my/records

    my/photos/NAME.jpg    the pictures, by the base name of the task's path or URL, also without the 8 digits that Label
                          Studio puts before the names of uploaded files (1a2b3c4d-NAME.jpg)
    my/export.json        the tasks; "JSON-MIN" is refused, as it does not say which annotation is meant
Brush masks, bitmasks, polygons and ellipses become regions, each a thing of its own, those that come later on top.
Rectangles are no outlines and are refused, unless --boxes takes them for what they are. Key points and answers without
a place (choices, text, ratings, relations) have no area: they are left out and counted. All other kinds are refused.
Of a task's annotations, those that were skipped (`was_cancelled`) do not count; of several others, it is the one marked
as ground truth, else the one that was submitted last (of the highest id), with a line that counts such tasks.
Predictions and drafts are not read. A submitted annotation without regions makes a picture without regions; a task that
has none is left out and counted. Pictures that were turned in Label Studio (`image_rotation`) are refused. The export
has no colors and no order of labels: classes are sorted by name. --stuff_classes says which are stuff.
Format: https://labelstud.io/guide/export#Raw-JSON-format-of-completed-tasks
"""

from __future__ import annotations

import base64
import binascii
import collections
import os.path
import posixpath
import re
import urllib.parse
from collections.abc import Sequence

from absl import flags

from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.importing.brush_runs import brush_runs
from deeplab2_kmax.converters.importing.classes import NamedClass
from deeplab2_kmax.converters.importing.conversion import (
    Export,
    ImportRules,
    Shards,
    tell_kinds_left_out,
    tell_left_out,
    write_records,
)
from deeplab2_kmax.converters.importing.document import Entry, as_entries, as_name, load_json, quoted
from deeplab2_kmax.converters.importing.drawn_shapes import Ellipse, PngMask
from deeplab2_kmax.converters.importing.regions import AnnotatedImage, Polygons, Region, Shape, turned_box
from deeplab2_kmax.converters.reading.images import FilesByName, split_by_fraction
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.names import without_ending
from deeplab2_kmax.pictures import PICTURE_ENDINGS
from deeplab2_kmax.wording import counted, some_of

_WITHOUT_AREA = (
    *("keypoint", "choices", "textarea", "rating", "number", "datetime", "taxonomy", "pairwise", "ranker", "relation"),
)
_SHAPES = ("brush", "bitmask", "polygon", "ellipse", "rectangle")
# The first of these fields that a value has says what it is.
_KIND_OF_FIELD = {
    "rle": "brush",
    "imageDataURL": "bitmask",
    "points": "polygon",
    "radiusX": "ellipse",
    "height": "rectangle",
    "x": "keypoint",
}
# What the address of a PNG begins with that holds it itself.
_PNG = "data:image/png;base64,"
_HASH = re.compile("[0-9a-f]{8}-")
_NAMED = 8


def convert_label_studio(
    dataset: str,
    image_folder: str,
    annotations: str,
    shards: Shards,
    rules: ImportRules | None = None,
    split: str = "train",
    val_fraction: float = 0.0,
    boxes: bool = False,
    image_key: str | None = None,
) -> list[str]:
    """Writes one record for each picture with a submitted annotation.

    Args:
        dataset: path of the descriptor file, or the name of a built-in data set. If there is no such file, it is
            written from the labels that regions have.
        image_folder: the folder of the pictures.
        annotations: the JSON file.
        shards: how the shards are written.
        rules: what the user decides about classes and overlaps; None: the defaults.
        split: what the names of the shards begin with.
        val_fraction: the share of the pictures, 0 to below 1, that goes to the split "val".
        boxes: take rectangles for what they are, instead of refusing them.
        image_key: the key of the picture in the `data` of a task; None: `image`, or the only one that holds a picture.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: annotations or pictures are broken, missing or contradict each other; see `write_records`.
    """
    export = read_label_studio(image_folder, annotations, split, val_fraction, boxes, image_key)
    return write_records(export, dataset, rules or ImportRules(), shards)


def read_label_studio(
    image_folder: str,
    annotations: str,
    split: str = "train",
    val_fraction: float = 0.0,
    boxes: bool = False,
    image_key: str | None = None,
) -> Export:
    """Reads the JSON file and finds its pictures; arguments and errors as for `convert_label_studio`."""
    tasks = _tasks(annotations)
    pictures = FilesByName(image_folder)
    images: list[AnnotatedImage] = []
    left_out: collections.Counter[str] = collections.Counter()
    places: dict[str, str] = {}
    several = 0
    for task in tasks:
        submitted = [a for a in task.entries("annotations") if not a.flag("was_cancelled", False)]
        if not submitted:
            continue
        several += len(submitted) > 1
        path = _picture(pictures, task, image_key, image_folder)
        if path in places:
            raise DataError(f"{task.where}: expected tasks of pictures that differ, {places[path]} has {path} as well")
        places[path] = task.where
        images.append(_annotated(_chosen(submitted), path, boxes, left_out))
    tell_kinds_left_out(left_out, annotations)
    tell_left_out(len(tasks) - len(images), len(tasks), f"no submitted annotation in {annotations}")
    if several:
        print(
            f"{annotations}: {counted(several, 'picture')} annotated more than once, of which the ground truth is"
            " taken, or what was submitted last"
        )
    names = sorted({region.class_name for image in images for region in image.regions})
    splits = dict(split_by_fraction(images, split, val_fraction))
    return Export(
        "label_studio",
        splits,
        [NamedClass(name) for name in names],
        {name: (annotations,) for name in splits},
        annotations,
        settings={"boxes": boxes},
        root=image_folder,
    )


def _tasks(annotations: str) -> list[Entry]:
    content = load_json(annotations)
    if isinstance(content, Entry):
        raise DataError(f"{annotations}: expected a list of tasks, got an object; export as JSON in Label Studio")
    tasks = as_entries(content, annotations)
    for task in tasks:
        if "annotations" not in task:
            raise DataError(
                f"{task.where}: expected the field annotations, which is missing; is this JSON-MIN? Export as JSON in"
                " Label Studio"
            )
    return tasks


def _chosen(submitted: Sequence[Entry]) -> Entry:
    """The annotation of a task that counts; ids are given in the order of submission."""
    if len(submitted) == 1:
        return submitted[0]
    ids = [each.whole("id") for each in submitted]
    if len(set(ids)) < len(ids):
        raise DataError(f"{submitted[0].where}: expected annotations of a task to have ids that differ, got {ids}")
    return max(submitted, key=lambda each: (each.flag("ground_truth", False), each.whole("id")))


def _picture(pictures: FilesByName, task: Entry, image_key: str | None, folder: str) -> str:
    data = task.entry("data")
    key = image_key or _picture_key(data)
    source = data.name(key)
    if source.startswith("data:"):
        raise DataError(f"{data.place(key)}: expected the path or URL of a picture, got the picture itself")
    for name in _possible_names(source, data.place(key)):
        path = pictures.find(name)
        if path is not None:
            return path
    raise DataError(f"{data.place(key)}: expected a picture in {folder} of the name of {quoted(source)}, found none")


def _picture_key(data: Entry) -> str:
    if "image" in data:
        return "image"
    texts = {key: data.raw(key, "") for key in data}
    found = [key for key, text in texts.items() if isinstance(text, str) and _ending(text) in PICTURE_ENDINGS]
    if len(found) != 1:
        raise DataError(
            f"{data.where}: expected the field image, or one field with a picture, got"
            f" {some_of(found, _NAMED) if found else 'none'}; give --image_key"
        )
    return found[0]


def _ending(source: str) -> str:
    return os.path.splitext(source.partition("?")[0])[1].lower()


def _possible_names(source: str, where: str) -> list[str]:
    """The names that a picture may have: as it is, by the path of a URL, and without Label Studio's own prefix."""
    try:
        parts = urllib.parse.urlsplit(source) if re.match("[a-z0-9-]+://|/", source) else None
    except ValueError as error:
        raise DataError(f"{where}: expected a path or URL, got {quoted(source)}") from error
    names = [source]
    if parts is not None:
        query = urllib.parse.parse_qs(parts.query)
        if "fileuri" in query:
            return _possible_names(_decoded_uri(query["fileuri"][0], where), where)
        names += [path.lstrip("/") for path in (*query.get("d", ()), parts.path)]
    for name in list(names):
        folder, base = posixpath.split(name)
        if _HASH.match(base):
            names.append(posixpath.join(folder, _HASH.sub("", base, count=1)))
    return [name for name in dict.fromkeys(names) if posixpath.basename(name)]


def _decoded_uri(text: str, where: str) -> str:
    """The address of a file in a cloud storage, which Label Studio hands on in base64."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise DataError(f"{where}: expected fileuri in base64, got {quoted(text)}") from error


def _annotated(annotation: Entry, path: str, boxes: bool, left_out: collections.Counter[str]) -> AnnotatedImage:
    results = annotation.entries("result")
    labelled = {result.text("id") for result in results if result.text("type") == "labels"}
    regions: list[Region] = []
    sizes: dict[tuple[int, int], str] = {}
    targets: dict[str, str] = {}
    for result in results:
        # With a list of labels of their own, a shape comes twice: by itself and, under the same id, with its label.
        kind = _kind(result)
        is_bare = result.text("type") == kind and kind in _KIND_OF_FIELD.values()
        if is_bare and result.text("id", "") in labelled:
            continue
        if kind in _WITHOUT_AREA:
            left_out[kind] += 1
            continue
        sizes.setdefault(_size(result), result.where)
        targets.setdefault(result.text("to_name", ""), result.where)
        regions.append(_region(result, kind, boxes))
    for found, what in ((sizes, "one size"), (targets, "one picture (to_name)")):
        if len(found) > 1:
            raise DataError(f"{list(found.values())[1]}: expected regions of {what} in an annotation, got another")
    name = without_ending(os.path.basename(path))
    return AnnotatedImage(name, path, regions, annotation.where, next(iter(sizes), None))


def _size(result: Entry) -> tuple[int, int]:
    size = result.whole("original_height"), result.whole("original_width")
    if min(size) < 1:
        raise DataError(f"{result.where}: expected original_height and original_width of at least 1, got {size}")
    rotation = result.number("image_rotation", 0)
    if rotation:
        raise DataError(
            f"{result.place('image_rotation')}: expected 0, got {rotation:g}; turn the picture file itself and label it"
            " anew, as records hold upright pictures"
        )
    if result.whole("item_index", 0):
        raise DataError(f"{result.place('item_index')}: expected tasks of one picture each, got one of several")
    return size


def _kind(result: Entry) -> str:
    """What a result is, without the word `labels` in it; in a list of labels of their own, its value tells."""
    kind: str = result.text("type")
    if kind != "labels":
        return kind[: -len("labels")] if kind.endswith("labels") else kind
    value = result.entry("value")
    return next((kind for field, kind in _KIND_OF_FIELD.items() if field in value), kind)


def _region(result: Entry, kind: str, boxes: bool) -> Region:
    if kind not in _SHAPES:
        raise DataError(
            f"{result.where}: expected one of {', '.join(f'{each}labels' for each in _SHAPES)}, or what has no area"
            f" ({', '.join(_WITHOUT_AREA)}), got {quoted(result.text('type'))}"
        )
    value, field = result.entry("value"), result.text("type")
    labels = value.items(field) if field != kind else []
    if len(labels) != 1:
        raise DataError(f"{value.place(field)}: expected one label, got {quoted(labels)}; label it in Label Studio")
    return Region(as_name(labels[0], value.place(field)), _shape(kind, value, _size(result), boxes), result.where)


def _shape(kind: str, value: Entry, size: tuple[int, int], boxes: bool) -> Shape:
    """A shape of a picture of some height and width, of which all lengths are percents."""
    y_scale, x_scale = (side / 100 for side in size)
    if kind == "brush":
        if value.text("format", "rle") != "rle":
            raise DataError(f"{value.place('format')}: expected rle, got {quoted(value.text('format'))}")
        return brush_runs(value.items("rle"), value.place("rle"))
    if kind == "bitmask":
        address = value.text("imageDataURL")
        if not address.startswith(_PNG):
            raise DataError(f"{value.place('imageDataURL')}: expected {_PNG}..., got {quoted(address)}")
        return PngMask(address[len(_PNG) :], 0, 0, size=size)
    if kind == "polygon":
        points = value.points("points")
        if not value.flag("closed", True):
            raise DataError(f"{value.place('closed')}: expected a closed polygon, got one that was not finished")
        return Polygons([[c * (y_scale if place % 2 else x_scale) for place, c in enumerate(points)]])
    x, y = value.number("x") * x_scale, value.number("y") * y_scale
    degrees = value.number("rotation", 0.0)
    if kind == "ellipse":
        return Ellipse(x, y, value.number("radiusX") * x_scale, value.number("radiusY") * y_scale, degrees)
    if not boxes:
        raise DataError(
            f"{value.where}: expected an outline, got a rectangle; outline it in Label Studio, delete it, or give"
            " --boxes to take it for what it is"
        )
    sides = value.number("width") * x_scale, value.number("height") * y_scale
    if min(sides) < 0:
        raise DataError(f"{value.where}: expected width and height of at least 0, got {quoted(sides)}")
    return turned_box((x, y), sides, (x, y), degrees)


def _define_flags() -> None:
    flags.DEFINE_string("image_folder", None, "Folder of the pictures.", required=True)
    flags.DEFINE_string("annotations", None, "JSON file of Label Studio's export 'JSON'.", required=True)
    command_line.define_split_flags()
    flags.DEFINE_boolean("boxes", False, "Take rectangles for what they are; by default they are refused.")
    flags.DEFINE_string(
        "image_key", None, "Key of the picture in the data of tasks; by default image, or the only one."
    )
    command_line.define_import_flags()


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_label_studio, __doc__)
