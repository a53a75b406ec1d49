"""The mask slots that count at each full-resolution pixel, without holding all slots at full resolution.

Mask probabilities are a softmax over slots of the bilinearly enlarged mask logits. They sum to one, so at most
ceil(1 / t) - 1 slots exceed a probability t at a pixel: the two largest are all a threshold of 1/3 or more asks for.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2.cells import Cells
from deeplab2_kmax.postprocessing.upsampled_top2.contested_cells import contested_peaks
from deeplab2_kmax.postprocessing.upsampled_top2.enlarged_rows import enlarged_peaks
from deeplab2_kmax.postprocessing.upsampled_top2.peaks import PixelPeaks, SlotPeaks, pairs
from deeplab2_kmax.postprocessing.upsampled_top2.softmax_sums import softmax_sums

# How far a probability may be off: thresholds are compared with this much to spare, and then exactly.
_SPARE = 1e-3


def slot_peaks(mask_logits: tf.Tensor, size: tuple[int, int], threshold: float, seconds: bool = True) -> SlotPeaks:
    """Finds the two slots of largest probability at each pixel of the enlarged masks.

    Args:
        mask_logits: float32 [B,h,w,N] with static h, w and N > 1.
        size: height H and width W of the maps asked for; logits are resized to it with corners aligned.
        threshold: probability, 0..1, above which slots are of interest.
        seconds: whether second slots are of interest; if not they are left out, which is faster.

    Returns:
        The peaks at [B,H,W].
    """
    cells = Cells.between(tuple(mask_logits.shape[1:3]), size)
    if cells is None:
        return enlarged_peaks(mask_logits, size, threshold)
    return _peaks_by_cells(mask_logits, cells, threshold, seconds and threshold < 0.5)


def _peaks_by_cells(mask_logits: tf.Tensor, cells: Cells, threshold: float, seconds: bool) -> SlotPeaks:
    """`slot_peaks` for sizes of which one has whole cells in the other.

    Where one slot is the largest at all four corners of a cell it is the largest within, since interpolation keeps
    order; its probability is 1 over the sum of exponentials. Only cells between different slots, or where two slots
    may exceed the threshold, are looked at slot by slot.
    """
    slots = mask_logits.shape[-1]
    sums, top = softmax_sums(mask_logits, cells)
    score = 1.0 / sums
    corner_slots = tf.gather(top, cells.corners(tf.range(tf.shape(top)[0])))
    contested = tf.reduce_any(corner_slots != top, 0)
    # Two slots exceed the threshold only if the larger leaves room for the other.
    if seconds:
        both = (score > threshold - _SPARE) & (score < 1.0 - threshold + _SPARE)
        contested |= tf.reduce_any(both, -1)
    where = tf.where(contested)
    exact = contested_peaks(tf.reshape(mask_logits, [-1, slots]), tf.cast(where[:, 0], tf.int32), sums, cells, seconds)

    plain = PixelPeaks(top[:, tf.newaxis], score, slots, 0.0)
    pair = tf.tensor_scatter_nd_update(pairs(plain, threshold, slots), where, pairs(exact, threshold, slots))
    score = tf.tensor_scatter_nd_update(score, where, exact.score)
    second = tf.tensor_scatter_nd_update(tf.zeros_like(top), where, exact.second[:, 0])
    second_score = tf.tensor_scatter_nd_update(tf.zeros_like(score[:, 0]), where, exact.second_score[:, 0])
    grid = PixelPeaks(top, score[:, 0], second, second_score)
    shape = [-1, cells.height, cells.width]
    return SlotPeaks(cells.as_map(pair), cells.as_map(score), PixelPeaks(*(tf.reshape(part, shape) for part in grid)))
