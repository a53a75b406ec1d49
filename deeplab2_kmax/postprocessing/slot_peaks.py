"""The mask slots that count at each full-resolution pixel, without holding all slots at full resolution.

Mask probabilities are a softmax over slots of the bilinearly enlarged mask logits. They sum to one, so at most
ceil(1 / t) - 1 slots exceed a probability t at a pixel: the two largest are all a threshold of 1/3 or more asks for.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing.cells import Cells
from deeplab2_kmax.postprocessing.contested_cells import contested_peaks
from deeplab2_kmax.postprocessing.enlarged_rows import enlarged_peaks
from deeplab2_kmax.postprocessing.peaks import SlotPeaks
from deeplab2_kmax.postprocessing.softmax_sums import softmax_sums

# How far a probability may be off: thresholds are compared with this much to spare, and then exactly.
_SPARE = 1e-3


def slot_peaks(mask_logits: tf.Tensor, size: tuple[int, int], threshold: float) -> SlotPeaks:
    """Finds the two slots of largest probability at each pixel of the enlarged masks.

    Args:
        mask_logits: float32 [B,h,w,N] with static h, w and N.
        size: height H and width W of the maps asked for; logits are resized to it with corners aligned.
        threshold: probability, 0..1, above which the second slot is of interest.

    Returns:
        The peaks at [B,H,W].
    """
    cells = Cells.between(tuple(mask_logits.shape[1:3]), size)
    if cells is None or mask_logits.shape[-1] < 2:
        return enlarged_peaks(mask_logits, size, threshold)
    return _peaks_by_cells(mask_logits, cells, threshold)


def _peaks_by_cells(mask_logits: tf.Tensor, cells: Cells, threshold: float) -> SlotPeaks:
    """`slot_peaks` for sizes of which one has whole cells in the other.

    Where one slot is the largest at all four corners of a cell it is the largest within, since interpolation keeps
    order; its probability is 1 over the sum of exponentials. Only cells between different slots, or where two slots
    may exceed the threshold, are looked at slot by slot.
    """
    slots = mask_logits.shape[-1]
    sums, top = softmax_sums(mask_logits, cells)
    score = 1.0 / sums
    corner_slots = tf.gather(top, cells.corners(tf.range(tf.shape(top)[0])))
    contested = tf.reduce_any(corner_slots != top[:, tf.newaxis], -1)
    if threshold < 0.5:
        two_may_count = (score > threshold - _SPARE) & (score < 1.0 - threshold + _SPARE)
        contested |= tf.reduce_any(two_may_count, -1)
    where = tf.where(contested)
    exact = contested_peaks(
        tf.reshape(mask_logits, [-1, slots]), tf.cast(where[:, 0], tf.int32), sums, cells, threshold
    )
    plain = SlotPeaks(
        first=tf.repeat(top[:, tf.newaxis], cells.pixels, axis=1),
        score=score,
        second=tf.fill(tf.shape(sums), slots),
        second_score=tf.zeros_like(sums),
    )
    return SlotPeaks(*(cells.as_map(tf.tensor_scatter_nd_update(part, where, new)) for part, new in zip(plain, exact)))
