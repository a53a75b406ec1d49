"""The two slots of largest mask probability at a pixel."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

_LOWEST = tf.float32.min


class PixelPeaks(NamedTuple):
    """The two slots of largest mask probability at each of some pixels, all of one shape.

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
    def specs(cls, shape: list[int | None]) -> PixelPeaks:
        """Tensor specs of peaks of this shape."""
        return cls(*(tf.TensorSpec(shape, dtype) for dtype in (tf.int32, tf.float32, tf.int32, tf.float32)))


class SlotPeaks(NamedTuple):
    """The slots that count at each pixel of the enlarged masks.

    Attributes:
        pair: int32 [B,H,W], first * (N + 2) + second: the slot of largest probability and the slot of second largest
            probability. Where the second's is not above the threshold asked for, N stands in its place; where not even
            the first's is, N + 1.
        score: float32 [B,H,W], the largest probability, 0..1.
        grid: the peaks at the pixels of the logits themselves, [B,h,w]. Second slots below the threshold may be
            given as any slot, with score 0.
    """

    pair: tf.Tensor
    score: tf.Tensor
    grid: PixelPeaks


def peaks_of(logits: tf.Tensor, seconds: bool = True, sums: tf.Tensor | None = None) -> PixelPeaks:
    """The peaks of mask logits over their last axis.

    Args:
        logits: float32 [M,N], N > 1.
        seconds: whether second slots are asked for; if not, their score is given as 0.
        sums: float32 [M], sums over slots of exp(logits); None: they are computed.

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
    at_first = tf.stack([tf.range(tf.shape(first)[0]), first], -1)
    second, largest = _largest(tf.tensor_scatter_nd_update(logits, at_first, tf.fill(tf.shape(first), _LOWEST)))
    return PixelPeaks(first, score, second, tf.exp(largest) / sums)


def _largest(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Place and value of the largest of values [M,N] over the last axis."""
    place = tf.argmax(values, -1, output_type=tf.int32)
    return place, tf.gather(values, place, batch_dims=1)


def pairs(peaks: PixelPeaks, threshold: float, slots: int) -> tf.Tensor:
    """The first and second slots of peaks as one number; see `SlotPeaks.pair`."""
    none = tf.where(peaks.score > threshold, slots, slots + 1)
    return peaks.first * (slots + 2) + tf.where(peaks.second_score > threshold, peaks.second, none)
