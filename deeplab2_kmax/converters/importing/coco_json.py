"""COCO's JSON of instances, or of stuff, as regions of pictures.

Format: https://cocodataset.org/#format-data, "Object Detection" and "Stuff Segmentation". `area` is not read, nor
`bbox` where there is a segmentation: tools compute them in ways of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_kmax.converters.importing.classes import NamedClass
from deeplab2_kmax.converters.importing.document import Entry, as_numbers, load_json_object, quoted
from deeplab2_kmax.converters.importing.regions import CocoRuns, Polygons, Region, Shape
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import counted, some_of

_NAMED = 8


@dataclasses.dataclass(frozen=True)
class CocoImage:
    """A picture that a file lists: its name there, (height, width), and its place in the file."""

    file_name: str
    size: tuple[int, int]
    where: str


@dataclasses.dataclass(frozen=True)
class CocoFile:
    """What a file holds.

    Attributes:
        path: the file.
        categories: {id: class}, in the order of the file.
        images: {id: picture}, in the order of the file.
        regions: {id of a picture: its regions, in the order of the file}, only of pictures that have any.
        used: the ids of the categories that annotations have.
        groups: {id of a category: the name of its supercategory}, where it has one.
    """

    path: str
    categories: Mapping[int, NamedClass]
    images: Mapping[int | str, CocoImage]
    regions: Mapping[int | str, Sequence[Region]]
    used: frozenset[int]
    groups: Mapping[int, str]


def read_coco_json(path: str, boxes: bool = False, ignore_iscrowd: bool = False, level: int = 0) -> CocoFile:
    """Reads a JSON file of instances or stuff.

    Args:
        path: the file.
        boxes: take an annotation without a segmentation for the rectangle of its bbox; otherwise it is refused.
        ignore_iscrowd: take each annotation for one thing, whatever its iscrowd is.
        level: of all regions, see `Region`.

    Raises:
        DataError: the file cannot be read, a field is missing or of another type, an id occurs twice, an annotation is
            of a picture or category that is not listed, or has no area.
    """
    content = load_json_object(path)
    if "annotations" in content and "images" not in content:
        _refuse_panoptic(content.entries("annotations"))
    images = read_images(content)
    categories = read_categories(content)
    regions: dict[int | str, list[Region]] = {}
    seen: dict[int | str, str] = {}
    used = set()
    annotations = content.entries("annotations")
    _refuse_panoptic(annotations)
    for entry in annotations:
        _require_new(_id(entry, "id"), entry, seen)
        image_id, category_id = _id(entry, "image_id"), entry.whole("category_id")
        where = f"{entry.where} (id {entry.raw('id')})"
        _require_listed(image_id, images, "image_id", "images", where)
        _require_listed(category_id, categories, "category_id", "categories", where)
        used.add(category_id)
        is_crowd = entry.flag("iscrowd", False) and not ignore_iscrowd
        region = Region(categories[category_id].name, _shape(entry, where, boxes), where, is_crowd, level=level)
        regions.setdefault(image_id, []).append(region)
    return CocoFile(path, categories, images, regions, frozenset(used), _groups(content))


def read_categories(content: Entry) -> dict[int, NamedClass]:
    """The classes that a file lists, by their ids.

    Raises:
        DataError: a field is missing or of another type, an id or a name occurs twice, or there are none.
    """
    seen: dict[int | str, str] = {}
    found: dict[int, NamedClass] = {}
    for entry in content.entries("categories"):
        category_id, name = entry.whole("id"), entry.name("name")
        _require_new(category_id, entry, seen)
        if category_id < 0:
            raise DataError(f"{entry.place('id')}: expected an id of at least 0, got {category_id}")
        found[category_id] = NamedClass(name, entry.flag("isthing", None), color_of(entry), category_id)
    if not found:
        raise DataError(f"{content.where}: expected at least one category, got none")
    return found


def read_images(content: Entry) -> dict[int | str, CocoImage]:
    """The pictures that a file lists, by their ids.

    Raises:
        DataError: a field is missing or of another type, or an id occurs twice.
    """
    seen: dict[int | str, str] = {}
    found: dict[int | str, CocoImage] = {}
    for entry in content.entries("images"):
        image_id = _id(entry, "id")
        _require_new(image_id, entry, seen)
        size = entry.whole("height"), entry.whole("width")
        if min(size) < 1:
            raise DataError(f"{entry.where}: expected a height and width of at least 1, got {size[0]} and {size[1]}")
        found[image_id] = CocoImage(entry.name("file_name"), size, entry.where)
    return found


def _groups(content: Entry) -> dict[int, str]:
    named = [(entry.whole("id"), entry.raw("supercategory", None)) for entry in content.entries("categories")]
    return {category_id: name for category_id, name in named if isinstance(name, str)}


def _shape(entry: Entry, where: str, boxes: bool) -> Shape:
    value = entry.raw("segmentation", [])
    if isinstance(value, dict):
        return _runs(entry.entry("segmentation"))
    if not isinstance(value, list):
        raise DataError(
            f"{entry.place('segmentation')}: expected a list of polygons, or run lengths with size and counts, got"
            f" {quoted(value)}"
        )
    if value:
        place = entry.place("segmentation")
        return Polygons([as_numbers(outline, f"{place}[{number}]") for number, outline in enumerate(value)])
    if boxes and "bbox" in entry:
        return _rectangle(entry)
    kind = "keypoints" if "keypoints" in entry else "a box" if "bbox" in entry else "nothing"
    way = "; give --boxes to take boxes for rectangles" if "bbox" in entry else ""
    raise DataError(
        f"{where}: expected a segmentation, polygons or run lengths, got {kind} only; outline it in the labelling tool"
        f"{way}"
    )


def _runs(entry: Entry) -> CocoRuns:
    size = entry.numbers("size")
    if len(size) != 2 or any(side != int(side) or side < 1 for side in size):
        raise DataError(f"{entry.place('size')}: expected height and width in pixels, got {quoted(size)}")
    counts = entry.raw("counts")
    if not isinstance(counts, str):
        counts = _whole_numbers(entry.numbers("counts"), entry.place("counts"))
    return CocoRuns(counts, int(size[0]), int(size[1]))


def _whole_numbers(values: Sequence[float], place: str) -> list[int]:
    for number, value in enumerate(values):
        if value != int(value):
            raise DataError(f"{place}[{number}]: expected a whole number, got {value:g}")
    return [int(value) for value in values]


def _rectangle(entry: Entry) -> Polygons:
    box = entry.numbers("bbox")
    if len(box) != 4 or min(box[2:]) <= 0:
        raise DataError(f"{entry.place('bbox')}: expected x, y, width and height in pixels, got {quoted(box)}")
    left, top, width, height = box
    right, bottom = left + width, top + height
    return Polygons([[left, top, right, top, right, bottom, left, bottom]])


def color_of(entry: Entry) -> tuple[int, int, int] | None:
    """The `color` of a category, [R, G, B], which COCO's panoptic files and some tools give; None if there is none.

    Raises:
        DataError: the list does not hold three whole numbers from 0 to 255.
    """
    value = entry.raw("color", None)
    if not isinstance(value, list):
        return None  # Tools that write colors in another way, such as "#ff0000", get colors of our choice.
    color = _whole_numbers(entry.numbers("color"), entry.place("color"))
    if len(color) != 3 or not all(0 <= part <= 255 for part in color):
        raise DataError(f"{entry.place('color')}: expected red, green and blue from 0 to 255, got {quoted(value)}")
    return color[0], color[1], color[2]


def _id(entry: Entry, field: str) -> int | str:
    """An id of a picture or annotation: a whole number in COCO, text with some tools."""
    value = entry.raw(field)
    return value if isinstance(value, str) else entry.whole(field)


def _require_new(each: int | str, entry: Entry, seen: dict[int | str, str]) -> None:
    if each in seen:
        raise DataError(f"{entry.place('id')}: expected ids that differ, got {quoted(each)} as in {seen[each]}")
    seen[each] = entry.where.rsplit(": ", 1)[-1]


def _require_listed(each: Any, known: Mapping[Any, Any], field: str, listed_in: str, where: str) -> None:
    if each not in known:
        raise DataError(
            f"{where}: expected the {field} of one of the {counted(len(known), 'entry', 'entries')} of {listed_in}"
            f" ({some_of(known, _NAMED)}), got {quoted(each)}"
        )


def _refuse_panoptic(annotations: Sequence[Entry]) -> None:
    for entry in annotations:
        if "segments_info" in entry:
            raise DataError(
                f"{entry.where}: expected an annotation of one instance, got segments_info; convert COCO's panoptic"
                " format with `deeplab2-kmax convert coco_panoptic`"
            )
