"""Peaks within cells where several slots compete, slot by slot."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2.cells import Cells
from deeplab2_kmax.postprocessing.upsampled_top2.peaks import PixelPeaks, peaks_of

# Cells whose pixels and slots are held at once.
_CELLS_AT_ONCE = 128
_IN_PARALLEL = 2
# Below this a sum of exponentials has lost too many of its terms to underflow.
_SMALLEST_SUM = 1e-30


def contested_peaks(
    logits: tf.Tensor, contested: tf.Tensor, sums: tf.Tensor, cells: Cells, seconds: bool
) -> PixelPeaks:
    """The peaks at the pixels of some cells.

    Args:
        logits: float32 [B*h*w,N], mask logits.
        contested: int32 [M], the cells in question.
        sums: float32 [B*h*w,K], see `softmax_sums`.
        cells: the cells of these logits.
        seconds: whether second slots are asked for; if not, their score is given as 0.

    Returns:
        The peaks at [M,K].
    """
    slots = logits.shape[-1]

    def peaks_within(chosen, sums_within):
        corners = tf.gather(logits, cells.corners(chosen))
        within = cells.interpolate(corners - tf.reduce_max(corners, -1, keepdims=True))
        peaks = peaks_of(tf.reshape(within, [-1, slots]), seconds, sums_within)
        return PixelPeaks(*(tf.transpose(tf.reshape(part, [cells.pixels, -1])) for part in peaks))

    def with_known_sums(chosen):
        return peaks_within(chosen, tf.reshape(tf.transpose(tf.gather(sums, chosen)), [-1]))

    specs = PixelPeaks.specs([_CELLS_AT_ONCE, cells.pixels])
    peaks = _in_chunks(with_known_sums, contested, specs)
    underflow = tf.where(tf.reduce_any(tf.gather(sums, contested) < _SMALLEST_SUM, -1))
    exact = _in_chunks(lambda chosen: peaks_within(chosen, None), tf.gather(contested, underflow[:, 0]), specs)
    return PixelPeaks(*(tf.tensor_scatter_nd_update(part, underflow, new) for part, new in zip(peaks, exact)))


def _in_chunks(function: Callable, chosen: tf.Tensor, specs):
    """`function` of int32 [M], a fixed number of entries at a time. Results are joined along their first axis, [M]."""
    count = tf.shape(chosen)[0]

    def chunk(index):
        return function(tf.gather(chosen, tf.minimum(index * _CELLS_AT_ONCE + tf.range(_CELLS_AT_ONCE), count - 1)))

    chunks = (count + _CELLS_AT_ONCE - 1) // _CELLS_AT_ONCE
    results = tf.map_fn(chunk, tf.range(chunks), fn_output_signature=specs, parallel_iterations=_IN_PARALLEL)
    return tf.nest.map_structure(
        lambda part: tf.reshape(part, tf.concat([[chunks * _CELLS_AT_ONCE], tf.shape(part)[2:]], 0))[:count], results
    )
