r"""Converts pictures that were labelled with labelme to TFRecords.

    deeplab2-kmax convert labelme --dataset=my/dataset.json --label_folder=my/labelme --stuff_classes=sky,road \
        --val_fraction=0.2 --output_dir=my/records

    my/labelme/NAME.json    `shapes`, and `imagePath`, which starts at the folder of the JSON
    my/labelme/NAME.jpg     any picture that `predict` reads; --image_folder where they lie elsewhere
Where there is no such picture, the copy in the JSON, `imageData`, is read, and a line tells how often.
Polygons, rectangles, turned rectangles, circles and masks are drawn, later ones on top. Shapes of one label and one
group_id are parts of one thing. Lines, line strips and points have no area: they are left out and counted. Shapes of
the label `__ignore__` become void, those of `_background_` the class of --background_class, by default void. A JSON
without shapes makes a record of void or background; pictures without a JSON are left out.

A pixel belongs to a polygon if its center does. labelme's own export adds the pixels that an outline touches: the two
differ by at most one pixel along outlines.
"""

from __future__ import annotations

import collections
import math
import os.path
import posixpath
from collections.abc import Sequence

from absl import flags

from deeplab2_kmax import files
from deeplab2_kmax.converters import command_line
from deeplab2_kmax.converters.importing.classes import NamedClass
from deeplab2_kmax.converters.importing.conversion import (
    Export,
    ImportRules,
    Shards,
    tell_kinds_left_out,
    tell_left_out,
    write_records,
)
from deeplab2_kmax.converters.importing.document import Entry, load_json_object, quoted
from deeplab2_kmax.converters.importing.drawn_shapes import Ellipse, PngMask
from deeplab2_kmax.converters.importing.regions import AnnotatedImage, Polygons, Region, Shape
from deeplab2_kmax.converters.reading.images import (
    FilesByName,
    list_folder,
    split_by_fraction,
    tell_of_subfolders,
)
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.names import without_ending
from deeplab2_kmax.pictures import PICTURE_ENDINGS
from deeplab2_kmax.wording import counted

_IGNORE, _BACKGROUND = "__ignore__", "_background_"
_WITHOUT_AREA = ("line", "linestrip", "point", "points")
_WITH_AREA = ("polygon", "rectangle", "oriented_rectangle", "circle", "mask")
# How many points describe these.
_POINTS = {"rectangle": 2, "oriented_rectangle": 4, "circle": 2, "mask": 2}


def convert_labelme(
    dataset: str,
    label_folder: str,
    shards: Shards,
    rules: ImportRules = ImportRules(),
    image_folder: str | None = None,
    split: str = "train",
    val_fraction: float = 0.0,
) -> list[str]:
    """Writes one record for each JSON of labelme.

    Args:
        dataset: path of the descriptor file. If there is no such file, it is written from the labels of the shapes,
            sorted by name.
        label_folder: the folder of the JSONs.
        shards: where and how the shards are written.
        rules: what becomes of the regions.
        image_folder: the folder where `imagePath` starts; None: that of the JSONs.
        split: what the names of the shards begin with.
        val_fraction: the share of the pictures that goes to the split "val", see `split_by_fraction`.

    Returns:
        The paths of the shards, in order.

    Raises:
        ConfigError: the descriptor cannot be read or contradicts itself.
        DataError: pictures or JSONs are missing, broken or contradict each other (the message names file and shape); or
            the output folder cannot be written. The shards that are finished by then are kept for the next run, see
            `ShardedOutput`.
    """
    export = read_labelme(label_folder, image_folder, split, val_fraction, rules.background_class)
    return write_records(export, dataset, rules, shards)


def read_labelme(
    label_folder: str,
    image_folder: str | None = None,
    split: str = "train",
    val_fraction: float = 0.0,
    background_class: str | None = None,
) -> Export:
    """Reads a folder of labelme's JSONs, and prints what is left out; see `convert_labelme` for the arguments.

    Raises:
        DataError: a JSON cannot be read, is none of labelme, or names a picture that is not there.
    """
    tell_of_subfolders(label_folder, (".json",), "JSON")
    jsons = [files.join(label_folder, name) for name in list_folder(label_folder) if name.lower().endswith(".json")]
    if not jsons:
        raise DataError(f"{label_folder}: expected the JSONs of labelme, got none")
    pictures = FilesByName(image_folder or label_folder)
    left_out: collections.Counter[str] = collections.Counter()
    images = [_image(path, pictures, image_folder or label_folder, left_out) for path in jsons]
    tell_kinds_left_out(left_out, label_folder)
    embedded = sum(image.image_field is not None for image in images)
    if embedded:
        print(f"{label_folder}: {counted(embedded, 'picture')} read from imageData, as there is no file of the name")
    _tell_of_pictures_without_json(images, image_folder or label_folder)
    if background_class is not None:
        images = [image._replace(regions=_renamed(image.regions, background_class)) for image in images]
    names = sorted({region.class_name for image in images for region in image.regions})
    return Export(
        "labelme",
        dict(split_by_fraction(images, split, val_fraction)),
        [NamedClass(name, is_thing=False if name == background_class else None) for name in names],
        {},
        label_folder,
        root=label_folder,
        void_classes=[name for name in (_IGNORE, _BACKGROUND) if name in names],
    )


def _image(path: str, pictures: FilesByName, folder: str, left_out: collections.Counter[str]) -> AnnotatedImage:
    content = load_json_object(path)
    regions = [_region(shape, left_out) for shape in content.entries("shapes")]
    listed = content.name("imagePath")
    image_path = pictures.find(listed)
    if image_path is None and "imageData" not in content:
        raise DataError(
            f"{path}: imagePath: expected a picture in {folder}, got {quoted(listed)}, which is not there;"
            " --image_folder names another folder"
        )
    height, width = content.whole("imageHeight", None), content.whole("imageWidth", None)
    size = None if height is None or width is None else (height, width)
    kept = [each for each in regions if each is not None]
    if image_path is None:
        name = without_ending(posixpath.basename(listed.replace("\\", "/")))
        return AnnotatedImage(name, path, kept, path, size, image_field="imageData")
    name = without_ending(os.path.basename(image_path))
    return AnnotatedImage(name, image_path, kept, path, size, (path,))


def _region(shape: Entry, left_out: collections.Counter[str]) -> Region | None:
    """The region of a shape; None, and one more in `left_out`, for a shape without an area."""
    name = shape.name("label")
    kind = shape.text("shape_type", "polygon")  # Old files have polygons only, and do not say so.
    group = shape.whole("group_id", None)
    if kind in _WITHOUT_AREA:
        left_out[kind] += 1
        return None
    if kind not in _WITH_AREA:
        raise DataError(
            f"{shape.place('shape_type')}: expected one of {', '.join(_WITH_AREA + _WITHOUT_AREA)}, got {quoted(kind)}"
        )
    return Region(name, _drawn(kind, shape), shape.where, instance=None if group is None else str(group))


def _drawn(kind: str, shape: Entry) -> Shape:
    points = shape.points("points")
    expected, got = _POINTS.get(kind), len(points) // 2
    if expected not in (None, got):
        raise DataError(f"{shape.place('points')}: expected {expected} points of a {kind}, got {got}")
    if kind in ("polygon", "oriented_rectangle"):
        return Polygons([points])
    left, top, right, bottom = points
    if kind == "rectangle":
        return Polygons([[left, top, right, top, right, bottom, left, bottom]])
    if kind == "circle":
        radius = math.hypot(right - left, bottom - top)
        return Ellipse(left, top, radius, radius)
    # The points of a mask are its first and its last pixel.
    left, top, right, bottom = (int(each) for each in points)
    return PngMask(shape.text("mask"), left, top, size=(bottom - top + 1, right - left + 1))


def _renamed(regions: Sequence[Region], background_class: str) -> list[Region]:
    """The regions, with those that labelme calls background as regions of the user's class."""
    return [each._replace(class_name=background_class) if each.class_name == _BACKGROUND else each for each in regions]


def _tell_of_pictures_without_json(images: Sequence[AnnotatedImage], folder: str) -> None:
    pictures = [name for name in list_folder(folder) if os.path.splitext(name)[1].lower() in PICTURE_ENDINGS]
    used = {os.path.basename(image.image_path) for image in images}
    tell_left_out(len(set(pictures) - used), len(pictures), f"no JSON names them ({folder})")


def _define_flags() -> None:
    flags.DEFINE_string("label_folder", None, "Folder of labelme's JSONs.", required=True)
    flags.DEFINE_string("image_folder", None, "Folder where imagePath starts; by default that of the JSONs.")
    command_line.define_split_flags()
    command_line.define_import_flags()


if __name__ == "__main__":
    _define_flags()
    command_line.convert_by_flags(convert_labelme, __doc__)
