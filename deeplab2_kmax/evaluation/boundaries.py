"""The pixels near the boundary of each segment of a map, as "Boundary IoU" defines them.

Cheng, Girshick, Dollar, Berg and Kirillov, CVPR 2021, arXiv:2103.16562: the pixels of a mask within a distance d of
what lies outside of it, the frame of the image included. d is a fraction of the image's diagonal, distance is the
larger of those along rows and columns.
"""

from __future__ import annotations

import math

import numpy as np


def boundary_width(shape: tuple[int, ...], ratio: float) -> int:
    """The distance d in pixels, at least 1, for an image of `shape` (height, width)."""
    height, columns = shape
    # Python's rounding, to the even one of two neighbors that are equally near, is the authors'.
    return max(1, round(ratio * math.sqrt(height**2 + columns**2)))


def near_boundaries(labels: np.ndarray, width: int) -> np.ndarray:
    """Which pixels lie near the boundary of the segment that they belong to.

    All segments are found at once, whatever their number: a pixel is within `width` of another segment exactly if it is
    within `width` - 1 of a pixel that has a neighbor, also a diagonal one, in another segment.

    Args:
        labels: integer [H, W], a number for each segment.
        width: in pixels, at least 1.

    Returns:
        bool [H, W].
    """
    height, columns = labels.shape
    edges = np.zeros(labels.shape, bool)
    # Neighbors to the right, below, and along both diagonals; an edge has pixels on both of its sides.
    for here, there in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        ((slice(None, -1), slice(None, -1)), (slice(1, None), slice(1, None))),
        ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))),
    ):
        differs = labels[here] != labels[there]
        edges[here] |= differs
        edges[there] |= differs
    near = _widened(_widened(edges, width - 1, 0), width - 1, 1)
    for side in (near[:width], near[max(0, height - width) :], near[:, :width], near[:, max(0, columns - width) :]):
        side[:] = True
    return near


def _widened(marks: np.ndarray, distance: int, axis: int) -> np.ndarray:
    """Marks all that has a mark within a distance along one axis: by how many marks there are up to each pixel."""
    if not distance:
        return marks
    length = marks.shape[axis]
    counts = np.cumsum(marks, axis=axis, dtype=np.int32)
    counts = np.concatenate([np.zeros_like(np.take(counts, [0], axis)), counts], axis)
    places = np.arange(length)
    last = np.take(counts, np.minimum(places + distance + 1, length), axis)
    return last > np.take(counts, np.maximum(places - distance, 0), axis)
