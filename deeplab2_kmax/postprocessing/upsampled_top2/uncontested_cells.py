"""Uncontested cells: what the strongest slots at their corners and the softmax sums say, which is all that is needed.

Also which cells are contested, and the maps once the peaks of these are known.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2.cells import Cells
from deeplab2_kmax.postprocessing.upsampled_top2.peaks import PeakMaps, PixelPeaks, pairs

# The most that rounding may change a probability. Cells where one comes so close to a threshold count as contested.
_SPARE = 1e-3


@dataclasses.dataclass(frozen=True)
class UncontestedCells:
    """All cells as if none were contested.

    Attributes:
        cells: of the logits.
        top: int32 [B * h * w], the strongest slot at each pixel of the logits.
        score: float32 [B * h * w, K], its probability at the pixels of the cell. In contested cells it may be anything,
            even infinite.
        slots: N.
        threshold: probability, 0..1, above which slots are of interest.
    """

    cells: Cells
    top: tf.Tensor
    score: tf.Tensor
    slots: int
    threshold: float

    def contested(self, seconds: bool) -> tf.Tensor:
        """Which cells are contested, bool [B * h * w].

        Args:
            seconds: whether second slots are asked for.
        """
        corner_slots = tf.gather(self.top, self.cells.corners(tf.range(tf.shape(self.top)[0])))
        contested = tf.reduce_any(corner_slots != self.top, 0)
        if not seconds:
            return contested
        # Two slots may exceed the threshold: the stronger one does, and leaves enough of 1 for the other.
        both = (self.score > self.threshold - _SPARE) & (self.score < 1.0 - self.threshold + _SPARE)
        return contested | tf.reduce_any(both, -1)

    def with_contested(self, where: tf.Tensor, peaks: PixelPeaks) -> PeakMaps:
        """The maps, with the contested cells in their places.

        Args:
            where: int64 [M, 1], numbers of the contested cells.
            peaks: theirs, at [M, K].
        """
        # An uncontested cell has no second slot.
        plain = PixelPeaks(self.top[:, tf.newaxis], self.score, self.slots, 0.0)
        pair, exact = (pairs(each, self.threshold, self.slots) for each in (plain, peaks))
        pair = tf.tensor_scatter_nd_update(pair, where, exact)
        score = tf.tensor_scatter_nd_update(self.score, where, peaks.score)
        # The first pixel of each cell is a pixel of the logits.
        second = tf.tensor_scatter_nd_update(tf.zeros_like(self.top), where, peaks.second[:, 0])
        second_score = tf.tensor_scatter_nd_update(tf.zeros_like(score[:, 0]), where, peaks.second_score[:, 0])
        grid = PixelPeaks(self.top, score[:, 0], second, second_score)
        shape = [-1, self.cells.height, self.cells.width]
        return PeakMaps(
            self.cells.as_map(pair), self.cells.as_map(score), PixelPeaks(*(tf.reshape(part, shape) for part in grid))
        )
