"""COCO's panoptic PNGs: the color of a pixel is its segment's id in base 256, lowest digit in red.

Format: https://cocodataset.org/#format-data, "Panoptic Segmentation".
"""

from __future__ import annotations

import numpy as np


def ids_to_colors(ids: np.ndarray) -> np.ndarray:
    """Segment ids [...] from 0 to 2^24 - 1 as colors [..., 3], uint8 RGB."""
    # The three lower bytes of each number, without arithmetic on whole maps: large pictures have 100 million pixels.
    digits = np.ascontiguousarray(ids, "<i4").reshape(-1, 1).view(np.uint8)
    return digits[:, :3].reshape(*np.shape(ids), 3)


def colors_to_ids(colors: np.ndarray) -> np.ndarray:
    """The reverse of `ids_to_colors`: colors [..., 3], uint8 RGB, as segment ids [...], int32."""
    digits = np.zeros((*colors.shape[:-1], 4), np.uint8)
    digits[..., :3] = colors
    return digits.view("<i4")[..., 0]
