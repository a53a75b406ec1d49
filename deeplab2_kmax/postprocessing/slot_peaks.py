"""The mask slots that count at each full-resolution pixel, without holding all slots at full resolution.

Mask probabilities are a softmax over slots of the bilinearly enlarged mask logits. They sum to one, so at most
ceil(1 / t) - 1 slots exceed a probability t at a pixel: the two largest are all a threshold of 1/3 or more asks for.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

# Logits [pixels, slots] held at once. Small enough for a processor's cache, large enough to keep two cores busy.
_PIXELS_AT_ONCE = 8192


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


_DTYPES = SlotPeaks(tf.int32, tf.float32, tf.int32, tf.float32)


def slot_peaks(mask_logits: tf.Tensor, size: tuple[int, int], threshold: float) -> SlotPeaks:
    """Finds the two slots of largest probability at each pixel of the enlarged masks.

    Args:
        mask_logits: float32 [B,h,w,N] with static h, w and N.
        size: height H and width W of the maps asked for; logits are resized to it with corners aligned.
        threshold: probability, 0..1, above which the second slot is of interest.

    Returns:
        The peaks at [B,H,W].
    """
    height, width = size
    rows = max(1, _PIXELS_AT_ONCE // width)
    stripes = -(-height // rows)

    def stripe(index):
        logits = _enlarged_rows(mask_logits, index * rows + tf.range(rows), size)
        return _peaks_of(logits, threshold)

    peaks = tf.map_fn(stripe, tf.range(stripes), fn_output_signature=_DTYPES, parallel_iterations=1)
    return SlotPeaks(*(_joined(part, height, width) for part in peaks))


def _enlarged_rows(mask_logits: tf.Tensor, rows: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Rows `rows` [R] of the logits enlarged to `size`: [B,R,W,N]. Rows beyond the last repeat it."""
    height, width = size
    last = mask_logits.shape[1] - 1
    scale = last / max(height - 1, 1)
    position = tf.minimum(tf.cast(rows, tf.float32) * scale, float(last))
    upper = tf.cast(tf.floor(position), tf.int32)
    above = tf.gather(mask_logits, upper, axis=1)
    below = tf.gather(mask_logits, tf.minimum(upper + 1, last), axis=1)
    fraction = (position - tf.cast(upper, tf.float32))[:, tf.newaxis, tf.newaxis]
    interpolated = above + (below - above) * fraction
    if mask_logits.shape[2] == width:
        return interpolated
    return tf.compat.v1.image.resize_bilinear(interpolated, [rows.shape[0], width], align_corners=True)


def _peaks_of(logits: tf.Tensor, threshold: float) -> SlotPeaks:
    """The peaks of logits [...,N] over their last axis."""
    slots = logits.shape[-1]
    first = tf.argmax(logits, -1, output_type=tf.int32)
    largest = tf.reduce_max(logits, -1, keepdims=True)
    scaled = tf.exp(logits - largest)
    score = 1.0 / tf.reduce_sum(scaled, -1)
    others = scaled * tf.one_hot(first, slots, on_value=0.0, off_value=1.0)
    second = tf.argmax(others, -1, output_type=tf.int32)
    second_score = tf.reduce_max(others, -1) * score
    counts = second_score > threshold
    return SlotPeaks(first, score, tf.where(counts, second, slots), tf.where(counts, second_score, 0.0))


def _joined(stripes: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Stripes [S,B,R,W] under one another, without the rows beyond the last: [B,H,W]."""
    count, rows = stripes.shape[0], stripes.shape[2]
    together = tf.reshape(tf.transpose(stripes, [1, 0, 2, 3]), [-1, count * rows, width])
    return together[:, :height]
