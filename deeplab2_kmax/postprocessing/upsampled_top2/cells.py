"""How full-resolution pixels lie between the pixels of the mask logits.

With corners aligned and sizes of the form stride * k + 1, the pixels of the logits are full-resolution pixels
themselves. The cell of a logit pixel (y, x) holds the full-resolution pixels from it up to, but without, those of its
neighbours y + 1 and x + 1. Cells of a batch are numbered through, [B*h*w]; the pixels of a cell row by row, [K].
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

_LARGEST_STRIDE = 8


@dataclasses.dataclass(frozen=True)
class Cells:
    """A grid of cells.

    Attributes:
        height: rows of the logits, h.
        width: columns of the logits, w.
        rows: full-resolution rows of a cell.
        columns: full-resolution columns of a cell.
    """

    height: int
    width: int
    rows: int
    columns: int

    @classmethod
    def between(cls, shape: tuple[int, int], size: tuple[int, int]) -> Cells | None:
        """The cells of logits of height and width `shape` enlarged to `size`; None if there are no whole cells."""
        strides = []
        for few, many in zip(shape, size):
            if few < 2 or (many - 1) % (few - 1) or not 1 <= (many - 1) // (few - 1) <= _LARGEST_STRIDE:
                return None
            strides.append((many - 1) // (few - 1))
        return cls(*shape, *strides)

    @property
    def pixels(self) -> int:
        """Full-resolution pixels of a cell, K."""
        return self.rows * self.columns

    def corners(self, cells: tf.Tensor) -> tf.Tensor:
        """The logit pixels at the corners of cells int32 [M]: int32 [4,M], upper left first, then upper right.

        At the right and lower border a corner outside is replaced by the one beside it.
        """
        right = tf.cast(cells % self.width < self.width - 1, tf.int32)
        below = tf.where(cells // self.width % self.height < self.height - 1, self.width, 0)
        return tf.stack([cells, cells + right, cells + below, cells + right + below])

    def inside(self) -> tf.Tensor:
        """Pixels that are part of the map, bool [h*w,K]: cells at the right and lower border reach beyond it."""
        row = (tf.range(self.height) < self.height - 1)[:, tf.newaxis] | (tf.range(self.rows) == 0)
        column = (tf.range(self.width) < self.width - 1)[:, tf.newaxis] | (tf.range(self.columns) == 0)
        inside = row[:, tf.newaxis, :, tf.newaxis] & column[tf.newaxis, :, tf.newaxis, :]
        return tf.reshape(inside, [self.height * self.width, self.pixels])

    def interpolate(self, corners: tf.Tensor) -> tf.Tensor:
        """Values at the pixels of cells, [K,M,N], from those at their corners, [4,M,N]."""
        left = _steps(corners[0], corners[2], self.rows)
        right = _steps(corners[1], corners[3], self.rows)
        columns = [_steps(a, b, self.columns) for a, b in zip(left, right)]
        return tf.stack([value for row in columns for value in row])

    def as_map(self, values: tf.Tensor) -> tf.Tensor:
        """Values at the pixels of all cells, [B*h*w,K], as maps [B,H,W]."""
        values = tf.reshape(values, [-1, self.height, self.width, self.rows, self.columns])
        values = tf.transpose(values, [0, 1, 3, 2, 4])
        values = tf.reshape(values, [-1, self.height * self.rows, self.width * self.columns])
        return values[:, : (self.height - 1) * self.rows + 1, : (self.width - 1) * self.columns + 1]


def _steps(begin: tf.Tensor, end: tf.Tensor, steps: int) -> list[tf.Tensor]:
    """`steps` evenly spaced values from `begin` up to, but without, `end`."""
    difference = end - begin
    return [begin] + [begin + difference * (step / steps) for step in range(1, steps)]
