"""Maps and pictures of many millions of pixels: numbered and counted in blocks of rows, and drawn for a screen.

A picture of 10,000 x 10,000 pixels takes 300 MB as RGB. Whole maps of float64 or int64, such as `np.unique` makes,
would take 800 MB each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Few enough that a block of floats in three colors takes 13 MB, many enough that blocks cost no time.
_PIXELS_AT_ONCE = 2**20
# The longer side of a picture that screens show pixel by pixel; larger ones are shrunk to about this size.
_SCREEN = 1000


def row_blocks(height: int, width: int) -> Iterator[slice]:
    """The rows of a map [height, width] in blocks; small maps are one block."""
    rows = max(1, _PIXELS_AT_ONCE // max(1, width))
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def numbered_segments(panoptic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `np.unique(panoptic, return_inverse=True)`, for a fraction of the memory.

    Args:
        panoptic: integer ids [H, W].

    Returns:
        The ids that occur [K], ascending, and for each pixel the place of its id among them, [H, W] of the smallest
        unsigned type that holds K.
    """
    blocks = list(row_blocks(*panoptic.shape))
    found = [np.unique(panoptic[rows]) for rows in blocks]
    ids = np.unique(np.concatenate(found))
    index = np.empty(panoptic.shape, np.min_scalar_type(max(len(ids) - 1, 0)))
    for rows in blocks:
        index[rows] = np.searchsorted(ids, panoptic[rows])
    return ids, index


def count_segments(index: np.ndarray, count: int) -> np.ndarray:
    """The pixels of each of `count` segments, int64 [count], in a map [H, W] of their numbers."""
    return sum(
        (np.bincount(index[rows].ravel(), minlength=count) for rows in row_blocks(*index.shape)),
        np.zeros(count, np.int64),
    )


def screen_shrinking(height: int, width: int) -> float:
    """How many pixels of a picture are one pixel of the screen that shows all of it; at least 1."""
    return max(1.0, max(height, width) / _SCREEN)


def line_width(height: int, width: int) -> int:
    """The width of a line, in pixels of the picture, that is one pixel wide on a screen that shows all of it."""
    return round(screen_shrinking(height, width))
