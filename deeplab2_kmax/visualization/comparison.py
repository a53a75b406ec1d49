"""Puts a picture beside its panoptic maps, at a size that suits a screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from deeplab2_kmax.visualization.overlay import display_scale, overlay
from deeplab2_kmax.visualization.panels import side_by_side

if TYPE_CHECKING:
    from deeplab2_kmax.datasets import DatasetDescriptor

# In pixels. Pictures whose longer side exceeds the first are shrunk; those whose shorter side is below the second are
# enlarged by a whole factor.
_LONGEST, _SHORTER = 512, 320


def comparison(image: np.ndarray, maps: Mapping[str, np.ndarray], descriptor: DatasetDescriptor) -> np.ndarray:
    """Draws a picture and, beside it, the same picture under each of the maps.

    Args:
        image: [h, w, 3] RGB 0..255 of any dtype and size; resized to the size of the maps.
        maps: title -> [H, W] panoptic ids, all of one size; at least one.
        descriptor: the data set the ids belong to.

    Returns:
        [H', W', 3] uint8 RGB.

    Raises:
        DataError: an id belongs to no class of the data set.
    """
    height, width = next(iter(maps.values())).shape
    shrink = min(1.0, _LONGEST / max(height, width))
    rows, columns = max(1, round(height * shrink)), max(1, round(width * shrink))
    original = Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    picture = np.asarray(original.resize((columns, rows), Image.Resampling.BICUBIC))
    scale = display_scale(rows, columns, _SHORTER)
    enlarged = Image.fromarray(picture).resize((columns * scale, rows * scale), Image.Resampling.BICUBIC)
    # Maps hold ids, which cannot be interpolated: of each block of pixels the middle one is kept.
    y = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    x = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    drawn = [(title, overlay(picture, panoptic[y][:, x], descriptor, scale=scale)) for title, panoptic in maps.items()]
    return side_by_side([("image", np.asarray(enlarged)), *drawn])
