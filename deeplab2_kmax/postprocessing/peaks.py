"""The two slots of largest mask probability at a pixel."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class SlotPeaks(NamedTuple):
    """The two slots of largest mask probability at each pixel.

    Attributes:
        first: int32 [B,H,W], the slot of largest probability.
        score: float32 [B,H,W], its probability, 0..1.
        second: int32 [B,H,W], the slot of second largest probability; the number of slots where that probability is
            not above the threshold asked for.
        second_score: float32 [B,H,W], its probability, 0..1; 0 where `second` is the number of slots.
    """

    first: tf.Tensor
    score: tf.Tensor
    second: tf.Tensor
    second_score: tf.Tensor

    @classmethod
    def specs(cls, shape: list[int | None]) -> SlotPeaks:
        """Tensor specs of peaks of this shape."""
        return cls(*(tf.TensorSpec(shape, dtype) for dtype in (tf.int32, tf.float32, tf.int32, tf.float32)))


def peaks_of(logits: tf.Tensor, threshold: float) -> SlotPeaks:
    """The peaks of mask logits [...,N] over their last axis; see `SlotPeaks` for `threshold`."""
    slots = logits.shape[-1]
    first = tf.argmax(logits, -1, output_type=tf.int32)
    scaled = tf.exp(logits - tf.reduce_max(logits, -1, keepdims=True))
    score = 1.0 / tf.reduce_sum(scaled, -1)
    others = scaled * tf.one_hot(first, slots, on_value=0.0, off_value=1.0)
    return with_second(
        first, score, tf.argmax(others, -1, output_type=tf.int32), tf.reduce_max(others, -1) * score, threshold, slots
    )


def with_second(
    first: tf.Tensor, score: tf.Tensor, second: tf.Tensor, second_score: tf.Tensor, threshold: float, slots: int
) -> SlotPeaks:
    """Peaks in which second slots that are not above the threshold are left out."""
    counts = second_score > threshold
    return SlotPeaks(first, score, tf.where(counts, second, slots), tf.where(counts, second_score, 0.0))
