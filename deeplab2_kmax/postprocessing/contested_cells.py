"""Peaks within cells where several slots compete."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from deeplab2_kmax.postprocessing.cells import Cells
from deeplab2_kmax.postprocessing.peaks import SlotPeaks, peaks_of, with_second

_CANDIDATES = 8
_CELLS_AT_ONCE = 1024
_CELLS_AT_ONCE_WITH_ALL_SLOTS = 256
_IN_PARALLEL = 2
# Below this a sum of exponentials has lost too many of its terms to underflow.
_SMALLEST_SUM = 1e-30


def contested_peaks(
    logits: tf.Tensor, contested: tf.Tensor, sums: tf.Tensor, cells: Cells, threshold: float
) -> SlotPeaks:
    """The peaks at the pixels of some cells.

    First among a few candidates a cell, which nearly always provably suffice; where not, among all slots.

    Args:
        logits: float32 [B*h*w,N], mask logits.
        contested: int32 [M], the cells in question.
        sums: float32 [B*h*w,K], see `softmax_sums`.
        cells: the cells of these logits.
        threshold: probability, 0..1, above which the second slot is of interest.

    Returns:
        The peaks at [M,K].
    """
    slots = logits.shape[-1]
    peaks, sufficient = _in_chunks(
        lambda chosen: _among_candidates(logits, chosen, sums, cells, threshold),
        contested,
        _CELLS_AT_ONCE,
        (SlotPeaks.specs([_CELLS_AT_ONCE, cells.pixels]), tf.TensorSpec([_CELLS_AT_ONCE], tf.bool)),
    )
    if slots <= _CANDIDATES:
        return peaks
    doubtful = tf.where(~sufficient)

    def among_all(chosen):
        corners = tf.gather(logits, cells.corners(chosen))
        return peaks_of(cells.interpolate(corners), threshold)

    exact = _in_chunks(
        among_all,
        tf.gather(contested, doubtful[:, 0]),
        _CELLS_AT_ONCE_WITH_ALL_SLOTS,
        SlotPeaks.specs([_CELLS_AT_ONCE_WITH_ALL_SLOTS, cells.pixels]),
    )
    return SlotPeaks(*(tf.tensor_scatter_nd_update(part, doubtful, new) for part, new in zip(peaks, exact)))


def _among_candidates(
    logits: tf.Tensor, chosen: tf.Tensor, sums: tf.Tensor, cells: Cells, threshold: float
) -> tuple[SlotPeaks, tf.Tensor]:
    """The peaks of cells int32 [M] among the slots that are largest at their corners, and whether no other can be one.

    A slot that is no candidate is nowhere in the cell above its largest corner, which is at most the smallest of the
    candidates' largest corners.
    """
    slots = logits.shape[-1]
    corners = tf.gather(logits, cells.corners(chosen))
    corners -= tf.reduce_max(corners, -1, keepdims=True)
    bound, candidates = tf.math.top_k(tf.reduce_max(corners, 1), min(_CANDIDATES, slots), sorted=False)
    bound = tf.reduce_min(bound, -1, keepdims=True)
    values = cells.interpolate(tf.gather(corners, candidates, axis=2, batch_dims=1))
    best, place = tf.math.top_k(values, 2)
    sums = tf.gather(sums, chosen)
    scores = tf.exp(best) / sums[..., tf.newaxis]
    first, second = tf.unstack(tf.gather(candidates, place, batch_dims=1), axis=-1)
    peaks = with_second(first, scores[..., 0], second, scores[..., 1], threshold, slots)

    sufficient = (best[..., 0] >= bound) & (sums > _SMALLEST_SUM)
    if threshold < 0.5:
        # Both are to be found: whatever exceeds the threshold has to be a candidate.
        sufficient &= bound < tf.math.log(sums) + math.log(max(threshold, 1e-30))
    return peaks, tf.reduce_all(sufficient, -1)


def _in_chunks(function: Callable, chosen: tf.Tensor, at_once: int, specs):
    """`function` of int32 [M], a fixed number of entries at a time. Results are joined along their first axis, [M]."""
    count = tf.shape(chosen)[0]

    def chunk(index):
        return function(tf.gather(chosen, tf.minimum(index * at_once + tf.range(at_once), count - 1)))

    chunks = (count + at_once - 1) // at_once
    results = tf.map_fn(chunk, tf.range(chunks), fn_output_signature=specs, parallel_iterations=_IN_PARALLEL)
    return tf.nest.map_structure(
        lambda part: tf.reshape(part, tf.concat([[chunks * at_once], tf.shape(part)[2:]], 0))[:count], results
    )
