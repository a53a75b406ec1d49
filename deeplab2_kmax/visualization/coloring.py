"""Colors of panoptic segments: the class color for stuff, and a different shade of it for each thing instance."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.visualization.large_maps import numbered_segments

if TYPE_CHECKING:
    from deeplab2_kmax.datasets import DatasetDescriptor

# From one instance of a class to the next, hue and lightness move by these fractions of their range. They are powers of
# 1 / 1.3247 (the plastic number): such steps never repeat and spread evenly over the square of hue and lightness, so
# that instances which follow each other look different.
_HUE_STEP, _LIGHTNESS_STEP = 0.7548776662, 0.5698402910
_HUE_RANGE, _LIGHTNESS_RANGE = 0.2, 0.36


def segment_colors(segment_ids: np.ndarray, descriptor: DatasetDescriptor) -> np.ndarray:
    """Chooses a color for each panoptic id.

    The n-th instance of a thing class, in the order of `segment_ids`, gets the n-th shade of the class color, so that
    the instances of one picture always differ.

    Args:
        segment_ids: [K] integers `class id * label_divisor + instance id`, sorted and unique.
        descriptor: the data set the ids belong to.

    Returns:
        [K, 3] uint8 RGB; black for void.

    Raises:
        DataError: an id belongs to no class of the data set.
    """
    classes = descriptor.by_id
    colors = np.zeros((len(segment_ids), 3), np.uint8)
    seen: dict[int, int] = {}
    for row, class_id in enumerate((np.asarray(segment_ids) // descriptor.label_divisor).tolist()):
        if class_id == descriptor.ignore_label:
            continue
        if class_id not in classes:
            raise DataError(
                f"panoptic id {segment_ids[row]} means class {class_id} (label divisor {descriptor.label_divisor}), "
                f"which data set {descriptor.name!r} does not have"
            )
        rank = seen.get(class_id, 0) if classes[class_id].is_thing else 0
        seen[class_id] = rank + 1
        colors[row] = _shade(classes[class_id].color, rank)
    return colors


def panoptic_to_color(panoptic: np.ndarray, descriptor: DatasetDescriptor) -> np.ndarray:
    """Paints each segment in its color.

    Args:
        panoptic: [H, W] integers `class id * label_divisor + instance id`.
        descriptor: the data set the ids belong to.

    Returns:
        [H, W, 3] uint8 RGB, void black.

    Raises:
        DataError: an id belongs to no class of the data set.
    """
    segment_ids, index = numbered_segments(panoptic)
    return segment_colors(segment_ids, descriptor)[index]


def _shade(color: tuple[int, int, int], rank: int) -> tuple[int, int, int]:
    """The `rank`-th variation of a class color; rank 0 is the color itself."""
    if rank == 0:
        return color
    hue, lightness, saturation = colorsys.rgb_to_hls(*(value / 255 for value in color))
    hue += _HUE_RANGE * ((rank * _HUE_STEP + 0.5) % 1 - 0.5)
    # Not close to black or white, where hues cannot be told apart.
    low = min(max(lightness - _LIGHTNESS_RANGE / 2, 0.2), 0.8 - _LIGHTNESS_RANGE)
    lightness = low + _LIGHTNESS_RANGE * ((rank * _LIGHTNESS_STEP + 0.5) % 1)
    red, green, blue = colorsys.hls_to_rgb(hue % 1, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)
