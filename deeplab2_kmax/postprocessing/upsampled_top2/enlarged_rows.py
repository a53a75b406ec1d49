"""Peaks of enlarged mask logits for any pair of sizes, a few full-resolution rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2.peaks import PixelPeaks, SlotPeaks, pairs, peaks_of

# Full-resolution pixels whose slots are held at once.
_PIXELS_AT_ONCE = 8192


def enlarged_peaks(mask_logits: tf.Tensor, size: tuple[int, int], threshold: float) -> SlotPeaks:
    """As `slot_peaks.slot_peaks`, without any condition on the sizes, and slower."""
    peaks = _peaks_at(mask_logits, size)
    grid = _peaks_at(mask_logits, tuple(mask_logits.shape[1:3]))
    return SlotPeaks(pairs(peaks, threshold, mask_logits.shape[-1]), peaks.score, grid)


def log_sums(mask_logits: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """The logarithm of the sum over slots of the exponentials of enlarged logits, float32 [B,H,W]."""
    return _by_stripes(mask_logits, size, tf.reduce_logsumexp, tf.TensorSpec(None, tf.float32))


def _peaks_at(mask_logits: tf.Tensor, size: tuple[int, int]) -> PixelPeaks:
    return _by_stripes(mask_logits, size, lambda logits, axis: peaks_of(logits), PixelPeaks.specs(None))


def _by_stripes(mask_logits: tf.Tensor, size: tuple[int, int], function: Callable, specs):
    """`function(logits [M,N], axis)`, which gives [M], of the enlarged logits of all pixels: [B,H,W] each."""
    height, width = size
    rows = min(height, max(1, _PIXELS_AT_ONCE // width))
    stripes = -(-height // rows)

    def stripe(index):
        logits = _enlarged_rows(mask_logits, index * rows + tf.range(rows), size)
        results = function(tf.reshape(logits, [-1, logits.shape[-1]]), axis=-1)
        return tf.nest.map_structure(lambda part: tf.reshape(part, [-1, rows, width]), results)

    def joined(part):
        together = tf.reshape(tf.transpose(part, [1, 0, 2, 3]), [-1, stripes * rows, width])
        return together[:, :height]

    shape = [mask_logits.shape[0], rows, width]
    specs = tf.nest.map_structure(lambda spec: tf.TensorSpec(shape, spec.dtype), specs)
    results = tf.map_fn(stripe, tf.range(stripes), fn_output_signature=specs, parallel_iterations=1)
    return tf.nest.map_structure(joined, results)


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
