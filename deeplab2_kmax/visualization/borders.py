"""Finds the pixels at the borders between segments or clusters."""

from __future__ import annotations

import numpy as np


def border_pixels(labels: np.ndarray, *, both_sides: bool = True) -> np.ndarray:
    """Marks the pixels that touch another label.

    Args:
        labels: [H, W] integers.
        both_sides: whether to compare with all four neighbors, so that a border is two pixels wide. Otherwise with
            the left and the upper one only: then a border is one pixel wide, and lies in the right or lower segment.

    Returns:
        [H, W] bool.
    """
    edges = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edges[:, 1:] |= across
    edges[1:] |= down
    if both_sides:
        edges[:, :-1] |= across
        edges[:-1] |= down
    return edges
