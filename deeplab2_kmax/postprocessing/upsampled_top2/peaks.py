"""Peaks: the two slots of largest mask probability at a pixel, and their probabilities."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

_LOWEST = tf.float32.min


class PixelPeaks(NamedTuple):
    """The peaks of some pixels; all attributes have one shape.

    Attributes:
        first: int32, the slot of largest probability.
        score: float32, its probability, 0..1.
        second: int32, the slot of second largest probability.
        second_score: float32, its probability, 0..1.
    """

    first: tf.Tensor
    score: tf.Tensor
    second: tf.Tensor
    second_score: tf.Tensor

    @classmethod
    def specs(cls, shape: list[int | None] | None) -> PixelPeaks:
        """Tensor specs of peaks of this shape (None: any shape)."""
        return cls(*(tf.TensorSpec(shape, dtype) for dtype in (tf.int32, tf.float32, tf.int32, tf.float32)))


class PeakMaps(NamedTuple):
    """The peaks of all pixels of a map, with both slots in one number, since what follows counts pairs of slots.

    Attributes:
        pair: int32 [B, H, W], first * (N + 2) + second, the slots of largest and of second largest probability. Where
            the second's is not above the threshold, N stands in its place, and N + 1 where not even the first's is.
        score: float32 [B, H, W], the largest probability, 0..1.
        grid: the peaks at the pixels of the logits, [B, h, w]. Where the second's probability is not above the
            threshold, the second may be any slot, with the score 0.
    """

    pair: tf.Tensor
    score: tf.Tensor
    grid: PixelPeaks


def peaks_of(logits: tf.Tensor, seconds: bool = True, sums: tf.Tensor | None = None) -> PixelPeaks:
    """The peaks of pixels whose logits are given.

    Args:
        logits: float32 [M, N], N > 1.
        seconds: whether second slots are asked for; if not, they have the score 0.
        sums: float32 [M], sums over slots of exp(logits); None: computed here, in a way that cannot overflow.

    Returns:
        The peaks, [M].
    """
    first, largest = _largest(logits)
    if sums is None:
        logits, largest = logits - largest[:, tf.newaxis], tf.zeros_like(largest)
        sums = tf.reduce_sum(tf.exp(logits), -1)
    score = tf.exp(largest) / sums
    if not seconds:
        return PixelPeaks(first, score, tf.zeros_like(first), tf.zeros_like(score))
    # The second slot is the largest one once the first has been taken out.
    at_first = tf.stack([tf.range(tf.shape(first)[0]), first], -1)
    second, largest = _largest(tf.tensor_scatter_nd_update(logits, at_first, tf.fill(tf.shape(first), _LOWEST)))
    return PixelPeaks(first, score, second, tf.exp(largest) / sums)


def _largest(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Index and value of the largest of values [M, N] over the last axis, [M]; of equal ones the first."""
    place = tf.argmax(values, -1, output_type=tf.int32)
    return place, tf.gather(values, place, batch_dims=1)


def pairs(peaks: PixelPeaks, threshold: float, slots: int) -> tf.Tensor:
    """The first and second slots of peaks as one number; see `PeakMaps.pair`."""
    none = tf.where(peaks.score > threshold, slots, slots + 1)
    return peaks.first * (slots + 2) + tf.where(peaks.second_score > threshold, peaks.second, none)
