"""Contested cells: the peaks where several slots compete, by interpolating the logits of every slot."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2.cells import Cells
from deeplab2_kmax.postprocessing.upsampled_top2.peaks import PixelPeaks, peaks_of

# Cells of which all pixels and slots are held in memory at once. A fixed number, so that shapes are static.
_CELLS_AT_ONCE = 128
_IN_PARALLEL = 2
# Softmax sums below this may have lost terms that count to underflow; they are computed anew.
_SMALLEST_SUM = 1e-30


def contested_peaks(
    logits: tf.Tensor, contested: tf.Tensor, sums: tf.Tensor, cells: Cells, seconds: bool
) -> PixelPeaks:
    """The peaks at the pixels of some cells.

    Args:
        logits: float32 [B * h * w, N], mask logits.
        contested: int32 [M], numbers of the cells in question.
        sums: float32 [B * h * w, K], the softmax sums.
        cells: the cells of these logits.
        seconds: whether second slots are asked for; if not, they have the score 0.

    Returns:
        The peaks at [M, K].
    """
    slots = logits.shape[-1]

    def peaks_within(chosen: tf.Tensor, sums_within: tf.Tensor | None) -> PixelPeaks:
        corners = tf.gather(logits, cells.corners(chosen))
        # The softmax sums are relative to the largest logit of each corner, so the logits have to be as well.
        within = cells.interpolate(corners - tf.reduce_max(corners, -1, keepdims=True))
        peaks = peaks_of(tf.reshape(within, [-1, slots]), seconds, sums_within)
        return PixelPeaks(*(tf.transpose(tf.reshape(part, [cells.pixels, -1])) for part in peaks))

    def with_known_sums(chosen: tf.Tensor) -> PixelPeaks:
        return peaks_within(chosen, tf.reshape(tf.transpose(tf.gather(sums, chosen)), [-1]))

    specs = PixelPeaks.specs([_CELLS_AT_ONCE, cells.pixels])
    peaks = _in_chunks(with_known_sums, contested, specs)
    underflow = tf.where(tf.reduce_any(tf.gather(sums, contested) < _SMALLEST_SUM, -1))
    exact = _in_chunks(lambda chosen: peaks_within(chosen, None), tf.gather(contested, underflow[:, 0]), specs)
    return PixelPeaks(*(tf.tensor_scatter_nd_update(part, underflow, new) for part, new in zip(peaks, exact)))


def _in_chunks(function: Callable[[tf.Tensor], PixelPeaks], chosen: tf.Tensor, specs: PixelPeaks) -> PixelPeaks:
    """The peaks of cells, some at a time.

    Args:
        function: gives the peaks of cells int32 [_CELLS_AT_ONCE], at [_CELLS_AT_ONCE, K].
        chosen: int32 [M], the cells.
        specs: tensor specs of what `function` returns.

    Returns:
        The peaks, [M, K].
    """
    count = tf.shape(chosen)[0]

    def chunk(index: tf.Tensor) -> PixelPeaks:
        # The last chunk is filled up with repetitions of the last cell, which are cut off below.
        return function(tf.gather(chosen, tf.minimum(index * _CELLS_AT_ONCE + tf.range(_CELLS_AT_ONCE), count - 1)))

    chunks = (count + _CELLS_AT_ONCE - 1) // _CELLS_AT_ONCE
    results = tf.map_fn(chunk, tf.range(chunks), fn_output_signature=specs, parallel_iterations=_IN_PARALLEL)
    return tf.nest.map_structure(
        lambda part: tf.reshape(part, tf.concat([[chunks * _CELLS_AT_ONCE], tf.shape(part)[2:]], 0))[:count], results
    )
