"""COCO's panoptic PNGs: the color of a pixel is its segment's id in base 256, lowest digit in red.

Format: https://cocodataset.org/#format-data, "Panoptic Segmentation".
"""

from __future__ import annotations

import numpy as np


def ids_to_colors(ids: np.ndarray) -> np.ndarray:
    """Segment ids [...] from 0 to 2^24 - 1 as colors [..., 3], uint8 RGB."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def colors_to_ids(colors: np.ndarray) -> np.ndarray:
    """The reverse of `ids_to_colors`: colors [..., 3], uint8 RGB, as segment ids [...], int32."""
    red, green, blue = (colors[..., channel].astype(np.int32) for channel in range(3))
    return red + 256 * green + 65536 * blue
