r"""Converts what CVAT exports as "CVAT for images 1.1" to TFRecords.

    deeplab2-kmax convert cvat --dataset=my/dataset.json --image_folder=my/images --annotations=my/annotations.xml \
        --stuff_classes=road,sky --output_dir=my/records

    my/images/NAME.jpg     the pictures of the task, or images/SUBSET/NAME.jpg as projects have them
    my/annotations.xml     of a task, a job or a project
Masks, polygons and ellipses become regions; a higher z_order is on top, then what comes later in the file, as CVAT
shows it. Shapes of one label and one group (group_id) are parts of one thing. An attribute `is_crowd` makes a crowd.
Boxes are no outlines and are refused, unless --boxes takes them for rectangles; cuboids are refused. Points, polylines,
tags and skeletons have no area: they are left out and counted. So are pictures without a region, as CVAT does not say
whether they are done; --empty_images says that they are. Tracks, of "CVAT for video", are refused: export the task as
"CVAT for images". CVAT does not say which labels are stuff: --stuff_classes. Pictures of a project are split by their
subset (Train, Validation -> train, val); those of "Default" go to --split.
Format: https://docs.cvat.ai/docs/other/xml_format. CVAT's COCO export is read by `coco_instances`, its "Segmentation
mask" by `voc`.
"""

from __future__ import annotations

import collections
import os.path
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import flags

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
from deeplab2_kmax.converters.importing.document import as_name, quoted
from deeplab2_kmax.converters.importing.drawn_shapes import Ellipse
from deeplab2_kmax.converters.importing.regions import (
    AnnotatedImage,
    Polygons,
    Region,
    Shape,
    mask_of_counts,
    turned_box,
)
from deeplab2_kmax.converters.importing.xml_document import XmlEntry, load_xml, number_of_text, whole_of_text
from deeplab2_kmax.converters.reading.images import FilesByName, split_by_fraction
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.names import without_ending
from deeplab2_kmax.pictures import PICTURE_ENDINGS
from deeplab2_kmax.wording import counted, did_you_mean, some_of

_WITHOUT_AREA = ("points", "polyline", "tag", "skeleton")
_SHAPES = ("mask", "polygon", "ellipse", "box", "cuboid")
# What a label can be drawn with; those of the first two rows make no class.
_LABEL_TYPES = (*_WITHOUT_AREA, "cuboid", "any", "mask", "polygon", "ellipse", "rectangle")
_CLASS_TYPES = ("any", "mask", "polygon", "ellipse", "rectangle")
_SPLITS = {"training": "train", "validation": "val"}
_NAMED = 8


class RunsInBox(NamedTuple):
    """CVAT's mask: lengths of runs outside and inside in turn, row by row within a box.

    Attributes:
        rle: the lengths as text with commas, the first of pixels outside; as numbers, those of all pictures would take
            much memory.
        left, top, width, height: the box in pixels.
    """

    rle: str
    left: int
    top: int
    width: int
    height: int

    def mask(self, height: int, width: int, where: str) -> np.ndarray:
        """See `Shape`."""
        right, bottom = self.left + self.width, self.top + self.height
        if self.left < 0 or self.top < 0 or self.width < 1 or self.height < 1 or right > width or bottom > height:
            raise DataError(
                f"{where}: expected a mask within the picture, {width} x {height} pixels, got one of {self.width} x"
                f" {self.height} at left {self.left}, top {self.top}"
            )
        counts = [whole_of_text(text, f"{where}: rle") for text in self.rle.split(",")]
        inside = np.zeros((height, width), bool)
        inside[self.top : bottom, self.left : right] = mask_of_counts(counts, self.height, self.width, where)
        return inside


def convert_cvat(
    dataset: str,
    image_folder: str,
    annotations: str,
    shards: Shards,
    rules: ImportRules | None = None,
    split: str = "train",
    val_fraction: float = 0.0,
    boxes: bool = False,
    empty_images: bool = False,
) -> list[str]:
    """Writes one record for each picture with a region, or for all.

    Args:
        dataset: path of the descriptor file, or the name of a built-in data set. If there is no such file, it is
            written from the labels of the export.
        image_folder: the folder of the pictures.
        annotations: the XML file.
        shards: how the shards are written.
        rules: what the user decides about classes and overlaps; None: the defaults.
        split: what the names of the shards begin with, for pictures of no subset or of "Default".
        val_fraction: the share of those pictures, 0 to below 1, that goes to the split "val".
        boxes: take boxes for the rectangles that they are, instead of refusing them.
        empty_images: whether pictures without a region hold nothing, and get a record.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: annotations or pictures are broken, missing or contradict each other; see `write_records`.
    """
    export = read_cvat(image_folder, annotations, split, val_fraction, boxes, empty_images)
    return write_records(export, dataset, rules or ImportRules(), shards)


def read_cvat(
    image_folder: str,
    annotations: str,
    split: str = "train",
    val_fraction: float = 0.0,
    boxes: bool = False,
    empty_images: bool = False,
) -> Export:
    """Reads the XML file and finds its pictures; arguments and errors as for `convert_cvat`."""
    root = load_xml(annotations, "annotations")
    _require_images(root)
    classes = _classes(root)
    pictures = FilesByName(image_folder)
    by_subset: dict[str, list[AnnotatedImage]] = {}
    left_out: collections.Counter[str] = collections.Counter()
    seen: dict[tuple[str, str], str] = {}
    entries = list(root.children("image"))
    for entry in entries:
        name, subset = entry.name("name"), _split_of_subset(entry, split)
        entry.where = f"{entry.where} ({quoted(name)})"
        _require_new(entry, name, seen)
        regions = _regions(entry, classes, boxes, left_out)
        if regions or empty_images:
            path = _picture(pictures, name, entry, image_folder)
            by_subset.setdefault(subset, []).append(_annotated(entry, name, path, regions))
    tell_kinds_left_out(left_out, annotations)
    kept = sum(map(len, by_subset.values()))
    tell_left_out(len(entries) - kept, len(entries), "no region (--empty_images keeps them as pictures of nothing)")
    splits = {name: images for name, images in by_subset.items() if name != split}
    for name, images in split_by_fraction(by_subset.get(split, []), split, val_fraction):
        splits[name] = [*splits.get(name, []), *images]
    return Export(
        "cvat",
        splits,
        list(classes.values()),
        {name: (annotations,) for name in splits},
        annotations,
        settings={"boxes": boxes, "empty_images": empty_images},
        root=image_folder,
    )


def _require_images(root: XmlEntry) -> None:
    """Refuses videos and files of another version or kind."""
    version = root.child_content("version", "1.1")
    if version != "1.1":
        raise DataError(f"{root.where}: expected version 1.1 of CVAT's format, got {quoted(version)}; export it again")
    for child in root.children():
        if child.tag == "track":
            raise DataError(
                f"{child.where}: expected pictures, got a track of 'CVAT for video'; export the task again as 'CVAT for"
                " images 1.1', which has the frames as pictures"
            )
        if child.tag not in ("version", "meta", "image"):
            raise DataError(f"{child.where}: expected <meta> and <image>, got <{child.tag}>")


def _classes(root: XmlEntry) -> dict[str, NamedClass]:
    """The labels of the export that can have an area, by name."""
    found: dict[str, NamedClass] = {}
    names: set[str] = set()
    for meta in root.children("meta"):
        for labels in meta.below("labels"):
            for label in labels.children("label"):
                # The parts of a skeleton, which are points.
                if label.child_content("parent", ""):
                    continue
                name = as_name(label.child_content("name"), label.where)
                if name in names:
                    raise DataError(f"{label.where}: expected names of labels that differ, got {quoted(name)}")
                names.add(name)
                if _label_type(label) in _CLASS_TYPES:
                    found[name] = NamedClass(name, None, color_of_hex(label.child_content("color", ""), label.where))
    if not found:
        raise DataError(
            f"{root.where}: expected labels for masks or polygons in <meta>, got {counted(len(names), 'other label')};"
            " is this the file of a 'CVAT for images 1.1' export?"
        )
    return found


def _label_type(label: XmlEntry) -> str:
    kind = label.child_content("type", "any")
    if kind not in _LABEL_TYPES:
        raise DataError(f"{label.where}: expected a type, one of {', '.join(sorted(_LABEL_TYPES))}, got {quoted(kind)}")
    return str(kind)


def _split_of_subset(image: XmlEntry, split: str) -> str:
    subset = image.text("subset", "").strip().lower()
    if subset in ("", "default"):
        return split
    if not re.fullmatch(r"\w[\w .-]*", subset):
        raise DataError(f"{image.place('subset')}: expected a name that files can have, got {quoted(subset)}")
    return _SPLITS.get(subset, subset)


def _require_new(image: XmlEntry, name: str, seen: dict[tuple[str, str], str]) -> None:
    """Refuses a frame or a picture that a task lists twice."""
    task = image.text("task_id", "")
    for key in ((task, f"id {image.whole('id')}"), (f"{task} {image.text('subset', '')}", f"name {name}")):
        if key in seen:
            raise DataError(f"{image.where}: expected pictures that differ, got the same {key[1]} as {seen[key]}")
        seen[key] = image.where.partition(": ")[2]


def _picture(pictures: FilesByName, name: str, image: XmlEntry, folder: str) -> str:
    """The path of a picture; the frames of a video are named without an ending."""
    subset = image.text("subset", "").strip()
    endings = [""] if without_ending(name) != name else ["", *PICTURE_ENDINGS, *map(str.upper, PICTURE_ENDINGS)]
    names = [base + ending for base in (posixpath.join(subset, name), name) for ending in endings]
    found = next((path for path in map(pictures.find, names) if path is not None), None)
    if found is None:
        raise DataError(f"{image.where}: expected the picture {name} in {folder}, found none")
    return found


def _annotated(image: XmlEntry, name: str, path: str, regions: Sequence[Region]) -> AnnotatedImage:
    size = image.whole("height"), image.whole("width")
    stem = without_ending(os.path.basename(path))
    return AnnotatedImage(stem, path, regions, image.where, size)


def _regions(
    image: XmlEntry, classes: Mapping[str, NamedClass], boxes: bool, left_out: collections.Counter[str]
) -> list[Region]:
    regions = []
    for entry in image.children():
        if entry.tag in _WITHOUT_AREA:
            left_out[entry.tag] += 1
        elif entry.tag in _SHAPES and _is_set(entry, "outside"):
            left_out[f"{entry.tag} marked as outside"] += 1
        elif entry.tag in _SHAPES:
            regions.append(_region(entry, classes, boxes))
        else:
            known = (*_SHAPES, *_WITHOUT_AREA)
            raise DataError(
                f"{entry.where}: expected one of {', '.join(known)}, got <{entry.tag}>{did_you_mean(entry.tag, known)}"
            )
    return regions


def _region(entry: XmlEntry, classes: Mapping[str, NamedClass], boxes: bool) -> Region:
    label = entry.name("label")
    if label not in classes:
        raise DataError(
            f"{entry.place('label')}: expected one of the labels of <meta> for masks and polygons,"
            f" {some_of(classes, _NAMED)}, got {quoted(label)}{did_you_mean(label, classes)}"
        )
    _is_set(entry, "occluded")
    group = entry.whole("group_id", 0)
    if group < 0:
        raise DataError(f"{entry.place('group_id')}: expected a number of at least 0, got {group}")
    shape = _shape(entry, boxes)
    return Region(label, shape, entry.where, _is_crowd(entry), str(group) if group else None, entry.whole("z_order", 0))


def _is_set(entry: XmlEntry, attribute: str) -> bool:
    value = entry.text(attribute, "0")
    if value not in ("0", "1"):
        raise DataError(f"{entry.place(attribute)}: expected 0 or 1, got {quoted(value)}")
    return bool(value == "1")


def _is_crowd(entry: XmlEntry) -> bool:
    for attribute in entry.children():
        if attribute.tag != "attribute":
            raise DataError(f"{entry.where}: expected <attribute>, got <{attribute.tag}>")
        if attribute.text("name") == "is_crowd":
            value = attribute.content().lower()
            if value not in ("true", "false", "1", "0"):
                raise DataError(f"{attribute.where}: expected is_crowd to be true or false, got {quoted(value)}")
            return value in ("true", "1")
    return False


def _shape(entry: XmlEntry, boxes: bool) -> Shape:
    if entry.tag == "mask":
        return RunsInBox(entry.text("rle"), *(entry.whole(side) for side in ("left", "top", "width", "height")))
    if entry.tag == "polygon":
        return Polygons([_points(entry)])
    if entry.tag == "ellipse":
        x, y, radius_x, radius_y = (entry.number(side) for side in ("cx", "cy", "rx", "ry"))
        return Ellipse(x, y, radius_x, radius_y, entry.number("rotation", 0.0))
    if entry.tag == "cuboid" or not boxes:
        way = "" if entry.tag == "cuboid" else ", or give --boxes to take boxes for rectangles"
        raise DataError(
            f"{entry.where}: expected an outline, got a {entry.tag}; make it a mask or polygon in CVAT, or delete it"
            f"{way}"
        )
    left, top, right, bottom = (entry.number(side) for side in ("xtl", "ytl", "xbr", "ybr"))
    if right <= left or bottom <= top:
        raise DataError(
            f"{entry.where}: expected xtl < xbr and ytl < ybr, got {left:g}, {right:g}, {top:g}, {bottom:g}"
        )
    middle = (left + right) / 2, (top + bottom) / 2
    return turned_box((left, top), (right - left, bottom - top), middle, entry.number("rotation", 0.0))


def _points(entry: XmlEntry) -> list[float]:
    place = entry.place("points")
    coordinates: list[float] = []
    for pair in entry.text("points").split(";"):
        numbers = [number_of_text(text, place) for text in pair.split(",")]
        if len(numbers) != 2:
            raise DataError(f"{place}: expected x,y of each point, got {quoted(pair)}")
        coordinates += numbers
    return coordinates


def _define_flags() -> None:
    flags.DEFINE_string("image_folder", None, "Folder of the pictures.", required=True)
    flags.DEFINE_string("annotations", None, "annotations.xml of a 'CVAT for images 1.1' export.", required=True)
    command_line.define_split_flags()
    flags.DEFINE_boolean("boxes", False, "Take boxes for rectangles; by default they are refused.")
    flags.DEFINE_boolean("empty_images", False, "Pictures without a region hold nothing; they get a record.")
    command_line.define_import_flags()


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_cvat, __doc__)
