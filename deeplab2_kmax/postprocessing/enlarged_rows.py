"""Peaks of enlarged mask logits for any pair of sizes, a few full-resolution rows at a time."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing.peaks import SlotPeaks, peaks_of

# Full-resolution pixels whose slots are held at once.
_PIXELS_AT_ONCE = 8192


def enlarged_peaks(mask_logits: tf.Tensor, size: tuple[int, int], threshold: float) -> SlotPeaks:
    """As `slot_peaks.slot_peaks`, without any condition on the sizes, and slower."""
    height, width = size
    rows = min(height, max(1, _PIXELS_AT_ONCE // width))
    stripes = -(-height // rows)

    def stripe(index):
        return peaks_of(_enlarged_rows(mask_logits, index * rows + tf.range(rows), size), threshold)

    specs = SlotPeaks.specs([mask_logits.shape[0], rows, width])
    peaks = tf.map_fn(stripe, tf.range(stripes), fn_output_signature=specs, parallel_iterations=1)

    def joined(part):
        together = tf.reshape(tf.transpose(part, [1, 0, 2, 3]), [-1, stripes * rows, width])
        return together[:, :height]

    return SlotPeaks(*map(joined, peaks))


def _enlarged_rows(mask_logits: tf.Tensor, rows: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Rows `rows` [R] of the logits enlarged to `size`: [B,R,W,N]. Rows beyond the last repeat it."""
    height, width = size
    last = mask_logits.shape[1] - 1
    position = tf.minimum(tf.cast(rows, tf.float32) * (last / max(height - 1, 1)), float(last))
    upper = tf.cast(tf.floor(position), tf.int32)
    above = tf.gather(mask_logits, upper, axis=1)
    below = tf.gather(mask_logits, tf.minimum(upper + 1, last), axis=1)
    interpolated = above + (below - above) * (position - tf.cast(upper, tf.float32))[:, tf.newaxis, tf.newaxis]
    if mask_logits.shape[2] == width:
        return interpolated
    return tf.compat.v1.image.resize_bilinear(interpolated, [rows.shape[0], width], align_corners=True)
