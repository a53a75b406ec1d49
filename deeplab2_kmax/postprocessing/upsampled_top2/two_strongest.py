"""The entry point: finds the peaks of all pixels, by cells where sizes allow, else by enlarged rows.

The folder's docstring explains how and why.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2.cells import Cells
from deeplab2_kmax.postprocessing.upsampled_top2.contested_cells import contested_peaks
from deeplab2_kmax.postprocessing.upsampled_top2.enlarged_rows import enlarged_peaks
from deeplab2_kmax.postprocessing.upsampled_top2.peaks import SPARE, PeakMaps, PixelPeaks, pairs
from deeplab2_kmax.postprocessing.upsampled_top2.softmax_sums import softmax_sums
from deeplab2_kmax.postprocessing.upsampled_top2.whole_tensors import whole_tensor_peaks


def two_strongest_slots(
    mask_logits: tf.Tensor, size: tuple[int, int], threshold: float, seconds: bool = True, portable: bool = False
) -> PeakMaps:
    """Finds the two slots of largest probability at each pixel of the enlarged masks.

    Args:
        mask_logits: float32 [B, h, w, N] with static h, w and N > 1.
        size: height H and width W of the maps, to which logits are enlarged bilinearly with corners aligned.
        threshold: probability, 0..1, above which slots are of interest.
        seconds: whether second slots are of interest; if not they are left out, which is faster.
        portable: see `PostprocessingSettings`.

    Returns:
        The peaks at [B, H, W].
    """
    if portable:
        return whole_tensor_peaks(mask_logits, size, threshold, seconds)
    cells = Cells.between(tuple(mask_logits.shape[1:3]), size)
    if cells is None:
        return enlarged_peaks(mask_logits, size, threshold)
    # Two probabilities of 1/2 or more leave no room for each other.
    return _peaks_by_cells(mask_logits, cells, threshold, seconds and threshold < 0.5)


def _peaks_by_cells(mask_logits: tf.Tensor, cells: Cells, threshold: float, seconds: bool) -> PeakMaps:
    """`two_strongest_slots` for sizes that have cells between them."""
    slots = mask_logits.shape[-1]
    sums, top = softmax_sums(mask_logits, cells)
    # Holds in uncontested cells; in the others it is replaced below.
    score = 1.0 / sums
    corner_slots = tf.gather(top, cells.corners(tf.range(tf.shape(top)[0])))
    contested = tf.reduce_any(corner_slots != top, 0)
    if seconds:
        # Two slots may exceed the threshold: the stronger one does, and leaves enough of 1 for the other.
        both = (score > threshold - SPARE) & (score < 1.0 - threshold + SPARE)
        contested |= tf.reduce_any(both, -1)
    where = tf.where(contested)
    chosen = tf.cast(where[:, 0], tf.int32)
    exact = contested_peaks(tf.reshape(mask_logits, [-1, slots]), chosen, sums, cells, seconds)

    # All cells as if uncontested (no second slot), then the contested ones in their places.
    plain = PixelPeaks(top[:, tf.newaxis], score, slots, 0.0)
    pair = tf.tensor_scatter_nd_update(pairs(plain, threshold, slots), where, pairs(exact, threshold, slots))
    score = tf.tensor_scatter_nd_update(score, where, exact.score)
    # The first pixel of each cell is a pixel of the logits.
    second = tf.tensor_scatter_nd_update(tf.zeros_like(top), where, exact.second[:, 0])
    second_score = tf.tensor_scatter_nd_update(tf.zeros_like(score[:, 0]), where, exact.second_score[:, 0])
    grid = PixelPeaks(top, score[:, 0], second, second_score)
    shape = [-1, cells.height, cells.width]
    return PeakMaps(cells.as_map(pair), cells.as_map(score), PixelPeaks(*(tf.reshape(part, shape) for part in grid)))
