r"""Converts a project in Supervisely's format to TFRecords.

    deeplab2-kmax convert supervisely --dataset=my/dataset.json --project_folder=my/project --stuff_classes=sky \
        --split_by=datasets --output_dir=my/records

    my/project/meta.json                   `classes`: title, shape and color
    my/project/DATASET/ann/PICTURE.json    `size` and `objects`; PICTURE is the file name with its ending, a.jpg.json
    my/project/DATASET/img/PICTURE         any picture that `predict` reads
Nested datasets, DATASET/datasets/..., are read as well. --split_by says what decides the split of a picture: fraction
(--split and --val_fraction), datasets (the name of its dataset), or tags (one of its tags is train, val or test).

Bitmaps, alpha masks (where at least half opaque), polygons, multipolygons and rectangles are drawn, later objects on
top; objects with the same `instance` key are parts of one thing. The points of a polygon are pixels, which belong to
it, as in Supervisely's SDK; the two differ at some pixels along slanted outlines. Points, lines and graphs have no
area: they are left out and counted. Objects of any other shape are refused. A picture without objects makes a record of
void or background; pictures without a JSON are left out and counted.
"""

from __future__ import annotations

import collections
import os.path
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from absl import flags

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.importing.classes import NamedClass, color_of_hex
from deeplab2_kmax.converters.importing.conversion import (
    Export,
    ImportRules,
    Shards,
    tell_kinds_left_out,
    tell_left_out,
    write_records,
)
from deeplab2_kmax.converters.importing.document import Entry, as_points, load_json_object, quoted
from deeplab2_kmax.converters.importing.drawn_shapes import PixelPolygons, PngMask
from deeplab2_kmax.converters.importing.regions import AnnotatedImage, Region, Shape
from deeplab2_kmax.converters.reading.images import FilesByName, list_folder, split_by_fraction
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.names import without_ending
from deeplab2_kmax.pictures import PICTURE_ENDINGS
from deeplab2_kmax.wording import did_you_mean

SPLIT_BY = ("fraction", "datasets", "tags")
_SPLIT_TAGS = ("train", "val", "test")
_WITHOUT_AREA = ("point", "line", "graph")
_WITH_AREA = ("bitmap", "alpha_mask", "polygon", "multipolygon", "rectangle")
_ANY_SHAPE = "any"
# Alpha values go to 255.
_HALF_OPAQUE = 128


class _Picture(NamedTuple):
    """A picture with what may decide its split."""

    image: AnnotatedImage
    dataset: str
    tags: Sequence[str]


def convert_supervisely(
    dataset: str,
    project_folder: str,
    shards: Shards,
    rules: ImportRules = ImportRules(),
    split_by: str = "fraction",
    split: str = "train",
    val_fraction: float = 0.0,
) -> list[str]:
    """Writes one record for each annotated picture of a project.

    Args:
        dataset: path of the descriptor file. If there is no such file, it is written from the classes of meta.json.
        project_folder: the folder of meta.json.
        shards: where and how the shards are written.
        rules: what becomes of the regions.
        split_by: one of `SPLIT_BY`.
        split: what the names of the shards begin with, if split by fraction.
        val_fraction: the share of the pictures that goes to the split "val", if split by fraction; see
            `split_by_fraction`.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: pictures or annotations are missing, broken or contradict each other (the message names file and
            object); or the output folder cannot be written. The shards that are finished by then are kept for the next
            run, see `ShardedOutput`.
    """
    return write_records(read_supervisely(project_folder, split_by, split, val_fraction), dataset, rules, shards)


def read_supervisely(
    project_folder: str, split_by: str = "fraction", split: str = "train", val_fraction: float = 0.0
) -> Export:
    """Reads a project, and prints what is left out; see `convert_supervisely` for the arguments.

    Raises:
        DataError: a file cannot be read or is none of a project of pictures, or a picture is missing.
    """
    if split_by not in SPLIT_BY:
        raise DataError(f"split_by: expected one of {', '.join(SPLIT_BY)}, got {split_by!r}")
    meta_path = files.join(project_folder, "meta.json")
    shapes, classes = _classes(load_json_object(meta_path))
    left_out: collections.Counter[str] = collections.Counter()
    pictures: list[_Picture] = []
    for name, folder in _datasets(project_folder):
        pictures += _pictures(folder, name, shapes, left_out)
    if not pictures:
        raise DataError(f"{project_folder}: expected datasets, folders with `ann` and `img` in them, got none")
    tell_kinds_left_out(left_out, project_folder)
    if split_by == "fraction":
        splits = dict(split_by_fraction([each.image for each in pictures], split, val_fraction))
    else:
        splits = _grouped(pictures, split_by)
    annotations = {name: [meta_path] for name in splits}
    return Export("supervisely", splits, classes, annotations, project_folder, root=project_folder)


def _classes(meta: Entry) -> tuple[dict[str, str], list[NamedClass]]:
    """{title of a class: its shape}, and the classes."""
    kind = meta.text("projectType", "images")
    if kind != "images":
        raise DataError(f"{meta.place('projectType')}: expected a project of images, got {quoted(kind)}")
    shapes: dict[str, str] = {}
    classes = []
    for entry in meta.entries("classes"):
        title = entry.name("title")
        if title in shapes:
            raise DataError(f"{entry.place('title')}: expected titles that differ, got {quoted(title)} twice")
        shapes[title] = entry.text("shape")
        color = color_of_hex(entry.text("color", None), entry.place("color"))
        classes.append(NamedClass(title, color=color))
    return shapes, classes


def _datasets(folder: str, above: str = "") -> list[tuple[str, str]]:
    """(name, folder) of each dataset of a folder; names of nested ones begin with those of the datasets above."""
    found = []
    for name in list_folder(folder):
        path = files.join(folder, name)
        if files.is_folder(files.join(path, "ann")):
            found.append((above + name, path))
        if files.is_folder(files.join(path, "datasets")):
            found += _datasets(files.join(path, "datasets"), f"{above}{name}_")
    return found


def _pictures(
    folder: str, dataset: str, shapes: Mapping[str, str], left_out: collections.Counter[str]
) -> list[_Picture]:
    annotations, image_folder = files.join(folder, "ann"), files.join(folder, "img")
    by_name = FilesByName(image_folder)
    found = []
    for name in list_folder(annotations):
        if not name.lower().endswith(".json"):
            continue
        path = files.join(annotations, name)
        image_path = by_name.find(name[: -len(".json")])
        if image_path is None:
            raise DataError(f"{path}: expected its picture in {image_folder}, which is not there; export pictures, too")
        content = load_json_object(path)
        size = content.entry("size")
        regions = [_region(entry, shapes, left_out) for entry in content.entries("objects")]
        image = AnnotatedImage(
            without_ending(os.path.basename(image_path)),
            image_path,
            [each for each in regions if each is not None],
            path,
            (size.whole("height"), size.whole("width")),
            (path,),
        )
        found.append(_Picture(image, dataset, [tag.text("name") for tag in content.entries("tags", [])]))
    there = list_folder(image_folder) if files.is_folder(image_folder) else []
    there = [name for name in there if os.path.splitext(name)[1].lower() in PICTURE_ENDINGS]
    used = {os.path.basename(each.image.image_path) for each in found}
    tell_left_out(len(set(there) - used), len(there), f"no JSON of this name in {annotations}")
    return found


def _region(entry: Entry, shapes: Mapping[str, str], left_out: collections.Counter[str]) -> Region | None:
    """The region of an object; None, and one more in `left_out`, for an object without an area."""
    title = entry.name("classTitle")
    if title not in shapes:
        raise DataError(
            f"{entry.place('classTitle')}: expected a class of meta.json, got {quoted(title)}"
            f"{did_you_mean(title, shapes)}"
        )
    kind = _kind(entry, shapes[title])
    if kind in _WITHOUT_AREA:
        left_out[kind] += 1
        return None
    if kind not in _WITH_AREA:
        raise DataError(
            f"{entry.where}: expected a shape of {', '.join(_WITH_AREA + _WITHOUT_AREA)}, got {quoted(kind)}; make"
            " it a bitmap or polygon in Supervisely"
        )
    return Region(title, _drawn(kind, entry), entry.where, instance=entry.name("instance", None))


def _kind(entry: Entry, shape: str) -> str:
    """The kind of an object, which old projects only give for its class."""
    kind: str = entry.text("geometryType", None) or entry.text("shape", None if shape == _ANY_SHAPE else shape) or ""
    if not kind:
        raise DataError(f"{entry.where}: expected the field geometryType, as its class may have any shape")
    if shape not in (_ANY_SHAPE, kind):
        raise DataError(f"{entry.where}: expected a {shape}, as meta.json says of its class, got {quoted(kind)}")
    return kind


def _drawn(kind: str, entry: Entry) -> Shape:
    if kind in ("bitmap", "alpha_mask"):
        mask = entry.entry("bitmap")
        origin = mask.numbers("origin")
        if len(origin) != 2:
            raise DataError(f"{mask.place('origin')}: expected x and y, got {quoted(origin)}")
        left, top = _pixels(origin)
        return PngMask(mask.text("data"), left, top, True, least=1 if kind == "bitmap" else _HALF_OPAQUE)
    if kind == "multipolygon":
        return PixelPolygons([_part(part) for part in entry.entries("parts")])
    points = entry.entry("points")
    if kind == "polygon":
        return PixelPolygons([_part(points)])
    corners = _pixels(points.points("exterior"))
    if len(corners) != 4:
        raise DataError(f"{points.place('exterior')}: expected two points of a rectangle, got {len(corners) // 2}")
    left, top, right, bottom = corners
    return PixelPolygons([((left, top, right, top, right, bottom, left, bottom), ())])


def _part(entry: Entry) -> tuple[Sequence[int], Sequence[Sequence[int]]]:
    holes = enumerate(entry.items("interior", []))
    place = entry.place("interior")
    return _pixels(entry.points("exterior")), [_pixels(as_points(hole, f"{place}[{k}]")) for k, hole in holes]


def _pixels(points: Sequence[float]) -> list[int]:
    """Points as whole pixels, rounded as Supervisely's SDK does it."""
    return [round(each) for each in points]


def _grouped(pictures: Sequence[_Picture], split_by: str) -> dict[str, list[AnnotatedImage]]:
    """The pictures by their datasets or tags; those without a tag of a split are left out."""
    found: dict[str, list[AnnotatedImage]] = {}
    untagged = 0
    for each in pictures:
        tags = sorted({tag for tag in each.tags if tag in _SPLIT_TAGS})
        if split_by == "tags" and len(tags) > 1:
            raise DataError(f"{each.image.where}: expected one tag of {', '.join(_SPLIT_TAGS)}, got {quoted(tags)}")
        if split_by == "tags" and not tags:
            untagged += 1
            continue
        found.setdefault(tags[0] if split_by == "tags" else each.dataset, []).append(each.image)
    tell_left_out(untagged, len(pictures), f"they have none of the tags {', '.join(_SPLIT_TAGS)}")
    return found


def _define_flags() -> None:
    flags.DEFINE_string("project_folder", None, "Folder of meta.json and of the datasets.", required=True)
    flags.DEFINE_enum("split_by", "fraction", SPLIT_BY, "What decides the split of a picture.")
    command_line.define_split_flags(" (--split_by=fraction)")
    command_line.define_import_flags()


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_supervisely, __doc__)
