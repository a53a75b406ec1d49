"""Draws a panoptic map over its picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.visualization.borders import border_pixels
from deeplab2_kmax.visualization.captions import draw_captions, readable_class_name
from deeplab2_kmax.visualization.coloring import segment_colors
from deeplab2_kmax.visualization.large_maps import line_width, numbered_segments, row_blocks

if TYPE_CHECKING:
    from deeplab2_kmax.datasets import DatasetDescriptor

# Segments that take up a smaller share of the picture get no name, because it would hide them.
_SMALLEST_NAMED_FRACTION = 0.002
# How many times as long as the shorter side is meant to be an enlarged picture may get.
_LONGEST_ENLARGED = 4


def display_scale(height: int, width: int, target: int = 480) -> int:
    """Whole factor by which to enlarge a picture so that its shorter side comes near `target` pixels (at least 1).

    The longer side stays within `_LONGEST_ENLARGED` target sizes: a strip that is one pixel wide would otherwise become
    a picture of hundreds of times its length.
    """
    shorter, longer = max(1, min(height, width)), max(1, height, width)
    return max(1, min(round(target / shorter), _LONGEST_ENLARGED * target // longer))


def overlay(
    image: np.ndarray,
    panoptic: np.ndarray,
    descriptor: DatasetDescriptor,
    *,
    opacity: float = 0.55,
    outlines: bool = True,
    names: bool = True,
    scale: int = 1,
    captions: Mapping[int, str] | None = None,
) -> np.ndarray:
    """Tints each segment in its color, draws its outline and writes its class name on it. Void is not tinted.

    Args:
        image: [H, W, 3] uint8 RGB.
        panoptic: [H, W] integers `class id * label_divisor + instance id`.
        descriptor: the data set the ids belong to.
        opacity: share of the segment's color in the result, 0..1.
        outlines: whether to draw a thin line between segments.
        names: whether to write class names on segments that are large enough.
        scale: whole factor to enlarge the picture by, see `display_scale`; lines and text keep their size. In large
            pictures, both are larger, so that they can be seen when the whole picture is on a screen.
        captions: texts to write in place of the class name, by panoptic id.

    Returns:
        [H * scale, W * scale, 3] uint8 RGB.

    Raises:
        DataError: the sizes differ, or an id belongs to no class of the data set.
    """
    _check(image, panoptic)
    segment_ids, index = numbered_segments(panoptic)
    void = segment_ids // descriptor.label_divisor == descriptor.ignore_label
    colors = segment_colors(segment_ids, descriptor).astype(np.float32)
    if scale > 1:
        height, width = panoptic.shape
        image = np.asarray(Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.BICUBIC))
        index = index.repeat(scale, 0).repeat(scale, 1)

    weight = np.where(void, 0.0, opacity).astype(np.float32)
    canvas = np.empty(image.shape, np.uint8)
    line = line_width(*index.shape) if outlines else 0
    for rows in row_blocks(*index.shape):
        part = index[rows]
        blended = image[rows] * (1 - weight)[part][..., None] + (colors * weight[:, None])[part]
        if outlines:
            lines = _outlines(index, rows, line) & ~void[part]
            blended[lines] = 0.25 * colors[part[lines]] + 0.75 * 255
        canvas[rows] = np.clip(np.rint(blended), 0, 255).astype(np.uint8)
    if not names:
        return canvas
    texts = _texts(segment_ids, descriptor, captions or {})
    smallest = max(_SMALLEST_NAMED_FRACTION * index.size, 1)
    return draw_captions(canvas, index, texts, smallest)


def _check(image: np.ndarray, panoptic: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"expected an RGB image [H, W, 3] of uint8, got shape {image.shape} of {image.dtype}")
    if panoptic.shape != image.shape[:2]:
        raise DataError(f"expected a panoptic map of the image's size {image.shape[:2]}, got shape {panoptic.shape}")


def _texts(segment_ids: np.ndarray, descriptor: DatasetDescriptor, captions: Mapping[int, str]) -> list[str]:
    """The text to write on each segment; empty for void."""
    names = {segment_class.id: readable_class_name(segment_class.name) for segment_class in descriptor.classes}
    names[descriptor.ignore_label] = ""
    return [captions.get(i, names[i // descriptor.label_divisor]) for i in segment_ids.tolist()]


def _outlines(index: np.ndarray, rows: slice, width: int) -> np.ndarray:
    """Marks the lines between segments, `width` pixels wide: bool, for some rows of the map [H, W] of segments."""
    # Lines of neighboring rows reach into these.
    start = max(0, rows.start - width)
    borders = border_pixels(index[start : rows.stop + width], both_sides=False)
    if width > 1:
        borders = _widened(_widened(borders, width).T, width).T
    return borders[rows.start - start :][: rows.stop - rows.start]


def _widened(marks: np.ndarray, width: int) -> np.ndarray:
    """Marks, bool [N, M], all that has a mark among the `width` rows around it."""
    wide = np.zeros_like(marks)
    for offset in range(-(width // 2), width - width // 2):
        here = slice(max(0, -offset), max(0, min(len(marks), len(marks) - offset)))
        wide[here] |= marks[max(0, offset) :][: here.stop - here.start]
    return wide
