"""Pictures with annotated regions: what the exports of all labelling tools come down to.

All of these are tuples, because a shard's items have to be values that JSON can hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from pycocotools import mask as coco_mask

from deeplab2_kmax.converters.importing.document import quoted
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import counted

# Tools let outlines run a little out of the picture. Points farther out, as a share of the longer side, are mistakes,
# such as those of a picture that was made smaller after it was labelled.
_OUTSIDE = 0.1
_FEWEST_POINTS = 3


class Shape(Protocol):
    """The pixels of a region, as one tool or another stores them."""

    def mask(self, height: int, width: int, where: str) -> np.ndarray:
        """Draws the shape.

        Args:
            height, width: of the picture.
            where: what the message of an error begins with.

        Returns:
            bool [height, width].

        Raises:
            DataError: the shape is broken, or does not fit a picture of this size.
        """


class Polygons(NamedTuple):
    """The area within some outlines, less holes.

    Pixels are filled as pycocotools does it for COCO: the point (0, 0) is the outer corner of the first pixel, so that
    an outline along the borders of pixels, (0, 0), (2, 0), (2, 3), (0, 3), covers 2 x 3 of them.

    Attributes:
        outlines: of each part, x and y of its points in turn, in pixels.
        holes: of each hole, the same.
    """

    outlines: Sequence[Sequence[float]]
    holes: Sequence[Sequence[float]] = ()

    def mask(self, height: int, width: int, where: str) -> np.ndarray:
        """See `Shape`."""
        inside = _filled(self.outlines, height, width, where)
        return inside & ~_filled(self.holes, height, width, where) if self.holes else inside


class CocoRuns(NamedTuple):
    """COCO's run lengths: of pixels outside and inside in turn, column by column.

    Attributes:
        counts: the lengths; as text they are compressed as pycocotools does it.
        height, width: of the picture that they were made for.
    """

    counts: str | Sequence[int]
    height: int
    width: int

    def mask(self, height: int, width: int, where: str) -> np.ndarray:
        """See `Shape`."""
        if (self.height, self.width) != (height, width):
            raise DataError(
                f"{where}: expected run lengths for a picture of {width} x {height} pixels, got them for"
                f" {self.width} x {self.height}"
            )
        counts = decompressed_counts(self.counts, where) if isinstance(self.counts, str) else self.counts
        return mask_of_counts(counts, width, height, where).T


class Region(NamedTuple):
    """One annotated region of a picture.

    Attributes:
        class_name: the name of its class.
        shape: its pixels.
        where: its place in the annotations, which messages begin with.
        is_crowd: whether it holds several things that are not told apart.
        instance: regions of one class with an equal instance are parts of one thing; None: a thing of its own.
        level: regions of a higher level lie on top of those below, whatever the rule for overlaps is.
    """

    class_name: str
    shape: Shape
    where: str
    is_crowd: bool = False
    instance: str | None = None
    level: int = 0


class AnnotatedImage(NamedTuple):
    """One picture and its regions, in the order of the annotations.

    Attributes:
        name: the name of the image in the record, without folder and ending.
        image_path: the picture file, or the JSON file that holds it.
        regions: what is annotated.
        where: the picture's place in the annotations, which messages begin with.
        size: (height, width) that the annotations give for the picture; None if they do not.
        label_paths: files besides the annotations that the label is read from.
        stuff_png: one of them, a PNG of one number a pixel, whose stuff lies below all regions; None if there is none.
        image_field: where `image_path` is a JSON, its field with the picture in base64; None where it is a picture.
    """

    name: str
    image_path: str
    regions: Sequence[Region]
    where: str
    size: tuple[int, int] | None = None
    label_paths: Sequence[str] = ()
    stuff_png: str | None = None
    image_field: str | None = None


def points_of(pairs: Sequence[Sequence[float]]) -> list[float]:
    """Points (x, y) as the list x, y, x, y, ... that `Polygons` takes."""
    return [coordinate for pair in pairs for coordinate in pair]


def turned_box(
    corner: tuple[float, float], size: tuple[float, float], about: tuple[float, float], degrees: float
) -> Polygons:
    """A rectangle as an outline.

    Args:
        corner: x and y of its upper left corner, before it is turned.
        size: its width and height.
        about: x and y of the point it is turned about.
        degrees: how far it is turned clockwise.

    Returns:
        Its `Polygons`.
    """
    (x, y), (width, height) = corner, size
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return Polygons([points_of([turned(point, about, degrees) for point in corners])])


def turned(point: tuple[float, float], about: tuple[float, float], degrees: float) -> tuple[float, float]:
    """A point that is turned clockwise about another one, as seen in a picture, where y points down."""
    if not degrees:
        return point  # Exactly, so that outlines along the borders of pixels stay there.
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    right, down = point[0] - about[0], point[1] - about[1]
    return about[0] + right * cosine - down * sine, about[1] + right * sine + down * cosine


def mask_of_counts(counts: Sequence[int], height: int, width: int, where: str) -> np.ndarray:
    """Lengths of runs of pixels outside and inside in turn, row by row, as a mask.

    Args:
        counts: the lengths, the first of pixels outside.
        height, width: of the mask.
        where: what the message of an error begins with.

    Returns:
        bool [height, width].

    Raises:
        DataError: a length is negative, or they do not add up to the number of pixels.
    """
    lowest, total = min(counts, default=0), sum(counts)
    if lowest < 0:
        raise DataError(f"{where}: expected run lengths of at least 0, got {lowest}")
    if total != height * width:
        raise DataError(
            f"{where}: expected run lengths that add up to {counted(height * width, 'pixel')}, got {total:,}"
        )
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, np.array(counts, np.int64)).reshape(height, width)


def counts_of_mask(mask: np.ndarray) -> list[int]:
    """The lengths of runs of pixels outside and inside in turn, row by row, the first of pixels outside.

    Args:
        mask: bool [height, width].
    """
    flat = np.concatenate([[False], mask.ravel()])
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    counts: list[int] = np.diff(np.concatenate([[0], starts, [mask.size]])).tolist()
    return counts


def decompressed_counts(text: str, where: str) -> list[int]:
    """The run lengths that pycocotools compresses to a text.

    Each length, from the third on less the one before the last, is written in pieces of 5 bits, lowest first. The bit
    above them says that there is another piece, and the 5th bit of the last piece is the sign. pycocotools reads past
    the end of a broken text, so that it is read here.

    Raises:
        DataError: the text ends within a length, or has a character that no compressed text has.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        piece = ord(character) - 48
        if not 0 <= piece < 64:
            raise DataError(f"{where}: expected compressed run lengths, got the character {quoted(character)} in them")
        value |= (piece & 31) << shift
        shift += 5
        if piece & 32:
            continue
        value -= (1 << shift) if piece & 16 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise DataError(f"{where}: expected compressed run lengths, got a text that is cut off")
    return counts


def _filled(outlines: Sequence[Sequence[float]], height: int, width: int, where: str) -> np.ndarray:
    """The pixels within any of the outlines: bool [height, width]."""
    for outline in outlines:
        check_outline(outline, height, width, where)
    if not outlines:
        return np.zeros((height, width), bool)
    parts = coco_mask.frPyObjects([list(map(float, outline)) for outline in outlines], height, width)
    return coco_mask.decode(coco_mask.merge(parts)).astype(bool)


def check_outline(outline: Sequence[float], height: int, width: int, where: str) -> None:
    """Refuses outlines of less than three points, and of points far out of the picture.

    pycocotools reads less as something else, and takes all memory for points beyond all measure.
    """
    if len(outline) % 2 or len(outline) < 2 * _FEWEST_POINTS:
        raise DataError(
            f"{where}: expected a polygon of at least {_FEWEST_POINTS} points, x and y of each, got"
            f" {counted(len(outline), 'number')}"
        )
    require_inside(outline, height, width, where)


def require_inside(points: Sequence[float], height: int, width: int, where: str) -> None:
    """Refuses points, x and y in turn, that lie farther outside of the picture than an outline may run."""
    margin = _OUTSIDE * max(height, width)
    for axis, side in enumerate((width, height)):
        lowest, highest = min(points[axis::2]), max(points[axis::2])
        if lowest < -margin or highest > side + margin:
            got = lowest if lowest < -margin else highest
            raise DataError(
                f"{where}: expected points of the picture, {width} x {height} pixels, got {'xy'[axis]} = {got:g};"
                " was the picture made smaller after it was labelled?"
            )
