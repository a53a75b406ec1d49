"""The entry point: finds the peaks of all pixels, by cells where sizes allow, else by enlarged rows.

The folder's docstring explains how and why.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2.cells import Cells
from deeplab2_kmax.postprocessing.upsampled_top2.contested_cells import contested_peaks
from deeplab2_kmax.postprocessing.upsampled_top2.enlarged_rows import enlarged_peaks
from deeplab2_kmax.postprocessing.upsampled_top2.peaks import PeakMaps
from deeplab2_kmax.postprocessing.upsampled_top2.softmax_sums import softmax_sums
from deeplab2_kmax.postprocessing.upsampled_top2.uncontested_cells import UncontestedCells
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
    seconds = seconds and threshold < 0.5
    slots = mask_logits.shape[-1]
    sums, top = softmax_sums(mask_logits, cells)
    plain = UncontestedCells(cells, top, 1.0 / sums, slots, threshold)
    where = tf.where(plain.contested(seconds))
    chosen = tf.cast(where[:, 0], tf.int32)
    exact = contested_peaks(tf.reshape(mask_logits, [-1, slots]), chosen, sums, cells, seconds)
    return plain.with_contested(where, exact)
