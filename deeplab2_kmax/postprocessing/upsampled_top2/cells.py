"""Cells: how the pixels of the enlarged map lie between the pixels of the mask logits.

With corners aligned and sizes of the form stride * k + 1, each logit pixel coincides with a pixel of the map. The cell
of logit pixel (y, x) holds the pixels of the map from there up to, but without, the neighbors y + 1 and x + 1. There
is a cell for each logit pixel; those of the last row and column reach beyond the map, so some of their pixels are no
part of it. Cells are numbered consecutively over the batch, [B * h * w], and the pixels of a cell row by row, [K].
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

# The graph has operations of its own for each of a cell's K pixels, and the softmax sums are made of K-th powers, whose
# relative error is K times that of their base. Both grow with the square of the stride.
_LARGEST_STRIDE = 8


@dataclasses.dataclass(frozen=True)
class Cells:
    """The grid of cells of a map.

    Attributes:
        height: rows of the logits, h.
        width: columns of the logits, w.
        rows: rows of the map in each cell, the vertical stride.
        columns: columns of the map in each cell, the horizontal stride.
    """

    height: int
    width: int
    rows: int
    columns: int

    @classmethod
    def between(cls, shape: tuple[int, int], size: tuple[int, int]) -> Cells | None:
        """The cells of logits [*shape, N] enlarged to `size`; None unless both strides are whole and 1 to 8."""
        strides = []
        for few, many in zip(shape, size):
            if few < 2 or (many - 1) % (few - 1) or not 1 <= (many - 1) // (few - 1) <= _LARGEST_STRIDE:
                return None
            strides.append((many - 1) // (few - 1))
        return cls(*shape, *strides)

    @property
    def pixels(self) -> int:
        """Pixels of a cell, K."""
        return self.rows * self.columns

    def corners(self, cells: tf.Tensor) -> tf.Tensor:
        """The logit pixels at the corners of cells.

        Args:
            cells: int32 [M], numbers of cells.

        Returns:
            int32 [4, M], upper left, upper right, lower left, lower right. Corners beyond the right and lower border
            are replaced by the ones next to them.
        """
        right = tf.cast(cells % self.width < self.width - 1, tf.int32)
        below = tf.where(cells // self.width % self.height < self.height - 1, self.width, 0)
        return tf.stack([cells, cells + right, cells + below, cells + right + below])

    def inside(self) -> tf.Tensor:
        """Which pixels of the cells of one image are part of the map, bool [h * w, K]."""
        row = (tf.range(self.height) < self.height - 1)[:, tf.newaxis] | (tf.range(self.rows) == 0)
        column = (tf.range(self.width) < self.width - 1)[:, tf.newaxis] | (tf.range(self.columns) == 0)
        inside = row[:, tf.newaxis, :, tf.newaxis] & column[tf.newaxis, :, tf.newaxis, :]
        return tf.reshape(inside, [self.height * self.width, self.pixels])

    def interpolate(self, corners: tf.Tensor) -> tf.Tensor:
        """Bilinear interpolation of values at the corners of cells, [4, M, N], to their pixels, [K, M, N]."""
        left = _steps(corners[0], corners[2], self.rows)
        right = _steps(corners[1], corners[3], self.rows)
        columns = [_steps(a, b, self.columns) for a, b in zip(left, right)]
        return tf.stack([value for row in columns for value in row])

    def as_map(self, values: tf.Tensor) -> tf.Tensor:
        """Values at the pixels of all cells, [B * h * w, K], as maps [B, H, W]; what lies beyond the map is cut off."""
        values = tf.reshape(values, [-1, self.height, self.width, self.rows, self.columns])
        values = tf.transpose(values, [0, 1, 3, 2, 4])
        values = tf.reshape(values, [-1, self.height * self.rows, self.width * self.columns])
        return values[:, : (self.height - 1) * self.rows + 1, : (self.width - 1) * self.columns + 1]


def _steps(begin: tf.Tensor, end: tf.Tensor, steps: int) -> list[tf.Tensor]:
    """`steps` evenly spaced values from `begin` up to, but without, `end`."""
    difference = end - begin
    return [begin] + [begin + difference * (step / steps) for step in range(1, steps)]
