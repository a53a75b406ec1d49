"""Label maps of PASCAL VOC's layout: which numbers and colors in mask PNGs stand for which classes.

Format of labelmap.txt, as CVAT and Datumaro write it: https://docs.cvat.ai/docs/dataset_management/formats/format-smask
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.converters.importing.document import quoted, read_annotation_text
from deeplab2_kmax.converters.reading.images import read_source
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures.label_pngs import MaskPng, decode_mask
from deeplab2_kmax.records.label_runs import LabelRuns
from deeplab2_kmax.wording import counted, some_of

BACKGROUND = "background"
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_NAMED = 6
_BLACK = 0
# VOC draws a border of this color, index 255, around things, and over what is too difficult.
_VOID_INDEX, _VOID_COLOR = 255, 224 * 256**2 + 224 * 256 + 192
_FIELDS = 4
_COLOR = re.compile(r"\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*")


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """The classes of masks.

    Attributes:
        where: what says so, for messages.
        names: of the classes, by index, `BACKGROUND` among them where it has an index.
        colors: the color of each, 256^2 R + 256 G + B.
    """

    where: str
    names: tuple[str, ...]
    colors: tuple[int, ...]

    def rgb(self, name: str) -> tuple[int, int, int]:
        """The color of a class, 0..255."""
        color = self.colors[self.names.index(name)]
        return color >> 16, color >> 8 & 255, color & 255

    def by_color(self) -> dict[int, str | None]:
        """{color: name, None for void}"""
        unlisted: dict[int, str | None] = {_VOID_COLOR: None}
        if BACKGROUND not in self.names:
            unlisted[_BLACK] = BACKGROUND
        return {**unlisted, **dict(zip(self.colors, self.names))}


def read_label_map(folder: str) -> LabelMap:
    """The label map of a folder in VOC's layout: its labelmap.txt, or VOC's own classes where there is none.

    Raises:
        DataError: the file cannot be read, a line is of another form, a name or a color occurs twice, or only some
            lines have a color.
    """
    path = files.join(folder, "labelmap.txt")
    if not files.exists(path):
        classes = (BACKGROUND, *VOC_CLASSES)
        return LabelMap("PASCAL VOC's classes", classes, tuple(map(voc_color, range(len(classes)))))
    names: list[str] = []
    colors: list[int | None] = []
    for number, line in enumerate(read_annotation_text(path).split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}: line {number}"
        name, color = _name_and_color(line, where)
        if name in names or (color is not None and color in colors):
            raise DataError(
                f"{where}: expected names and colors that differ, got a second line of {quoted(line.strip())}"
            )
        names.append(name)
        colors.append(color)
    if not names:
        raise DataError(f"{path}: expected lines such as cat:128,0,0::, got none")
    given = [color for color in colors if color is not None]
    if given and len(given) < len(colors):
        missing = names[colors.index(None)]
        raise DataError(f"{path}: expected a color of each class or of none, got none of {quoted(missing)}")
    return LabelMap(path, tuple(names), tuple(given or map(voc_color, range(len(names)))))


def voc_color(index: int) -> int:
    """The color that VOC gives to an index, 0..255, as 256^2 R + 256 G + B.

    The bits of the index go to red, green and blue in turn, from the highest bit of each on.
    """
    color = 0
    for bit in range(8):
        channel, place = bit % 3, 7 - bit // 3
        color |= (index >> bit & 1) << place + 8 * (2 - channel)
    return color


def class_names(path: str, labels: LabelMap) -> tuple[LabelRuns, list[str | None]]:
    """The classes of a mask PNG.

    Colors decide, also those of a palette. Grey values, and a palette of greys that are no colors of classes, are
    indices into the label map; 255 is void.

    Args:
        path: the PNG.
        labels: the meaning of its colors and numbers.

    Returns:
        The PNG's numbers, and the name of the class of each of their `values`; None for void.

    Raises:
        DataError: the PNG cannot be read, or has a color or number that stands for no class.
    """
    mask = decode_mask(read_source(path, "label"), path)
    runs = LabelRuns(mask.numbers)
    values = runs.values.tolist()
    names = _by_colors(mask, values, labels)
    unknown = [value for value in values if value not in names]
    is_grey = mask.palette is not None and all(mask.palette[v : v + 1] == (v * 0x10101,) for v in values)
    if not mask.has_colors and (mask.palette is None or (unknown and is_grey)):
        names = dict(enumerate(_indexed(labels, path)))
    if not mask.has_colors:
        names.setdefault(_VOID_INDEX, None)
    for value in values:
        if value not in names:
            raise DataError(f"{path}: {_what(mask, value)}: expected one of {labels.where}, {_known(mask, labels)}")
    return runs, [names[value] for value in values]


def instance_numbers(path: str) -> np.ndarray:
    """The instances of a mask PNG: each color, or number, is one.

    Returns:
        int32 [height, width], numbers from 1 on; 0 where there is none, that is, black or 0, and VOC's void.

    Raises:
        DataError: the PNG cannot be read, or has more than 65,535 colors.
    """
    mask = decode_mask(read_source(path, "label"), path)
    runs = LabelRuns(mask.numbers)
    values = runs.values.tolist()
    if mask.has_colors:
        none = {_BLACK, _VOID_COLOR}
    else:
        if mask.palette is not None and 0 in values and mask.palette[0] != _BLACK:
            raise DataError(
                f"{path}: expected a palette that begins with black, as index 0 means no instance, got"
                f" {_color_text(mask.palette[0])}; save it with VOC's palette, or as RGB"
            )
        # Of 16 bits, 255 is a number as any other.
        none = {0, _VOID_INDEX} if max(values) <= _VOID_INDEX else {0}
    numbers: list[int] = []
    for value in values:
        numbers.append(0 if value in none else max(numbers, default=0) + 1)
    if max(numbers) >= 2**16:
        raise DataError(f"{path}: expected a color for each instance, got {counted(len(values), 'color')}")
    return runs.paint(np.array(numbers, np.int32))


def _by_colors(mask: MaskPng, values: list[int], labels: LabelMap) -> dict[int, str | None]:
    """{value of the PNG: name} of those whose color is known."""
    by_color = labels.by_color()
    if mask.has_colors:
        return by_color
    palette = mask.palette or ()
    return {v: by_color[palette[v]] for v in values if v < len(palette) and palette[v] in by_color}


def _indexed(labels: LabelMap, path: str) -> tuple[str, ...]:
    if BACKGROUND not in labels.names:
        raise DataError(
            f"{path}: expected colors, as {labels.where} does not say which number is {BACKGROUND!r}, got numbers; add"
            f" the line {BACKGROUND}:0,0,0:: at its place"
        )
    return labels.names


def _what(mask: MaskPng, value: int) -> str:
    """A value of a mask, how often it occurs, and where first."""
    y, x = np.argwhere(mask.numbers == value)[0].tolist()
    pixels = counted(int((mask.numbers == value).sum()), "pixel")
    place = f"the first at column {x}, row {y}"
    if mask.has_colors:
        return f"{pixels} of the color {_color_text(value)}, {place}"
    palette = mask.palette or ()
    color = f" ({_color_text(palette[value])})" if value < len(palette) else ""
    return f"{pixels} of the {'number' if mask.palette is None else 'index'} {value}{color}, {place}"


def _known(mask: MaskPng, labels: LabelMap) -> str:
    if mask.palette is None and not mask.has_colors:
        return f"0 to {len(labels.names) - 1}, or {_VOID_INDEX} for void"
    return some_of([f"{_color_text(color)} {name}" for color, name in zip(labels.colors, labels.names)], _NAMED, "; ")


def _color_text(color: int) -> str:
    return f"{color >> 16},{color >> 8 & 255},{color & 255}"


def _name_and_color(line: str, where: str) -> tuple[str, int | None]:
    fields = line.strip().split(":")
    if len(fields) != _FIELDS or not fields[0].strip():
        raise DataError(
            f"{where}: expected label:color:parts:actions, such as cat:128,0,0::, got {quoted(line.strip())}"
        )
    if not fields[1].strip():
        return fields[0].strip(), None
    match = _COLOR.fullmatch(fields[1])
    parts = [int(part) for part in match.groups()] if match else []
    if not parts or max(parts) > 255:
        raise DataError(f"{where}: expected a color such as 128,0,0, three numbers up to 255, got {quoted(fields[1])}")
    return fields[0].strip(), parts[0] << 16 | parts[1] << 8 | parts[2]
