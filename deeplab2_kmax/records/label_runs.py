"""Label maps as runs of equal pixels: a hundred times fewer values to sort, count and replace than there are pixels."""

from __future__ import annotations

import numpy as np


class LabelRuns:
    """A map of ids, row by row, as runs of equal ids.

    Args:
        ids: an integer map of any shape, at least one pixel.

    Attributes:
        values: the ids that occur, ascending.
        areas: int64, the pixels of each.
    """

    def __init__(self, ids: np.ndarray):
        flat = ids.ravel()
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
        self._shape = ids.shape
        self._lengths = np.diff(starts, append=flat.size)
        self.values, self._which = np.unique(flat[starts], return_inverse=True)
        self.areas = np.bincount(self._which, weights=self._lengths).astype(np.int64)

    def paint(self, new_values: np.ndarray) -> np.ndarray:
        """The map with `new_values[i]` in place of `values[i]`."""
        return np.repeat(new_values[self._which], self._lengths).reshape(self._shape)
