"""Enlarged rows: the peaks for any pair of sizes, by enlarging the logits of all slots a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2.peaks import PeakMaps, PixelPeaks, pairs, peaks_of

# Pixels of the map of which all slots are held in memory at once.
_PIXELS_AT_ONCE = 8192

_Maps = TypeVar("_Maps")


def enlarged_peaks(mask_logits: tf.Tensor, size: tuple[int, int], threshold: float) -> PeakMaps:
    """`two_strongest_slots` for any sizes, and slower; second slots are always found."""
    peaks = _peaks_at(mask_logits, size)
    grid = _peaks_at(mask_logits, tuple(mask_logits.shape[1:3]))
    return PeakMaps(pairs(peaks, threshold, mask_logits.shape[-1]), peaks.score, grid)


def log_sums(mask_logits: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """The logarithm of the softmax's denominator: log of the sum over slots of exp(enlarged logits).

    Args:
        mask_logits: float32 [B, h, w, N] with static h, w and N.
        size: height H and width W of the enlarged logits.

    Returns:
        float32 [B, H, W].
    """
    return _by_stripes(mask_logits, size, tf.reduce_logsumexp, tf.TensorSpec(None, tf.float32))


def _peaks_at(mask_logits: tf.Tensor, size: tuple[int, int]) -> PixelPeaks:
    return _by_stripes(mask_logits, size, lambda logits, axis: peaks_of(logits), PixelPeaks.specs(None))


def _by_stripes(mask_logits: tf.Tensor, size: tuple[int, int], function: Callable[..., _Maps], specs: _Maps) -> _Maps:
    """Applies a function to the enlarged logits of every pixel.

    Args:
        mask_logits: float32 [B, h, w, N].
        size: height H and width W of the enlarged logits.
        function: `function(logits [M, N], axis=-1)`, which returns tensors [M].
        specs: what it returns, as tensor specs of any shape.

    Returns:
        What the function returns, [B, H, W] each.
    """
    height, width = size
    rows = min(height, max(1, _PIXELS_AT_ONCE // width))
    stripes = -(-height // rows)

    # The last stripe may reach below the map; rows there are repetitions, and are cut off when stripes are joined.
    def stripe(index: tf.Tensor) -> _Maps:
        logits = _enlarged_rows(mask_logits, index * rows + tf.range(rows), size)
        results = function(tf.reshape(logits, [-1, logits.shape[-1]]), axis=-1)
        return tf.nest.map_structure(lambda part: tf.reshape(part, [-1, rows, width]), results)

    def joined(part: tf.Tensor) -> tf.Tensor:
        together = tf.reshape(tf.transpose(part, [1, 0, 2, 3]), [-1, stripes * rows, width])
        return together[:, :height]

    shape = [mask_logits.shape[0], rows, width]
    specs = tf.nest.map_structure(lambda spec: tf.TensorSpec(shape, spec.dtype), specs)
    results = tf.map_fn(stripe, tf.range(stripes), fn_output_signature=specs, parallel_iterations=1)
    return tf.nest.map_structure(joined, results)


def _enlarged_rows(mask_logits: tf.Tensor, rows: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Some rows of the enlarged logits, [B, R, W, N].

    Args:
        mask_logits: float32 [B, h, w, N].
        rows: int32 [R], which rows; those below the last one repeat it.
        size: height and width W of the enlarged logits.
    """
    height, width = size
    last = mask_logits.shape[1] - 1
    position = tf.minimum(tf.cast(rows, tf.float32) * (last / max(height - 1, 1)), float(last))
    upper = tf.cast(tf.floor(position), tf.int32)
    above = tf.gather(mask_logits, upper, axis=1)
    below = tf.gather(mask_logits, tf.minimum(upper + 1, last), axis=1)
    # Over rows by hand, as only some are wanted; over columns by TensorFlow.
    interpolated = above + (below - above) * (position - tf.cast(upper, tf.float32))[:, tf.newaxis, tf.newaxis]
    if mask_logits.shape[2] == width:
        return interpolated
    return tf.compat.v1.image.resize_bilinear(interpolated, [rows.shape[0], width], align_corners=True)
