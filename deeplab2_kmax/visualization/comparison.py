"""A picture beside its panoptic maps, at a size that suits a screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from deeplab2_kmax.visualization.overlay import display_scale, overlay
from deeplab2_kmax.visualization.panels import side_by_side

if TYPE_CHECKING:
    from deeplab2_kmax.datasets import DatasetDescriptor

# Pixels. Pictures with a longer side are made smaller, those with a shorter side enlarged by whole numbers.
_LONGEST, _SHORTER = 512, 320


def comparison(image: np.ndarray, maps: Mapping[str, np.ndarray], descriptor: DatasetDescriptor) -> np.ndarray:
    """Draws a picture and, beside it, the same with each of the maps laid over it.

    Args:
      image: [h, w, 3] RGB 0..255 of any type and size; brought to the size of the maps.
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
    picture = Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    picture = np.asarray(picture.resize((columns, rows), Image.Resampling.BICUBIC))
    scale = display_scale(rows, columns, _SHORTER)
    enlarged = Image.fromarray(picture).resize((columns * scale, rows * scale), Image.Resampling.BICUBIC)
    # The middle of each pixel that remains.
    y = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    x = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    drawn = [(title, overlay(picture, panoptic[y][:, x], descriptor, scale=scale)) for title, panoptic in maps.items()]
    return side_by_side([("image", np.asarray(enlarged)), *drawn])
