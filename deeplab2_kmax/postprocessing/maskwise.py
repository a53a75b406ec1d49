"""Mask-wise post-processing: masks are painted from the most to the least confident.

The scheme of MaskFormer (arXiv:2107.06278), Panoptic SegFormer (arXiv:2109.03814) and CMT-DeepLab (arXiv:2206.08948):
a mask is where a slot's probability exceeds a threshold; in descending order of confidence each mask takes the pixels
that are still free, unless too few of its pixels are.

Painting needs no canvas. With a threshold of 1/3 or more a pixel lies in two masks at most, so the pixels mask j finds
free are its area less its overlaps with the accepted masks before it: one table of overlaps [slots, slots], counted
once, settles which masks are accepted, and each pixel then goes to the first accepted mask it lies in.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.postprocessing import segments
from deeplab2_kmax.postprocessing.cells import Cells
from deeplab2_kmax.postprocessing.peaks import SlotPeaks
from deeplab2_kmax.postprocessing.settings import MaskwiseSettings, PostprocessingSettings
from deeplab2_kmax.postprocessing.slot_peaks import slot_peaks


class Painting(NamedTuple):
    """Who got which pixel. Slots go by rank here: 0 is the most confident, N stands for none.

    Attributes:
        entry: int32 [B,H,W], entry of `owner` that holds for a pixel.
        owner: int32 [B,K], rank of the slot that owns the pixels of an entry, or N.
        areas: float32 [B,N], pixels owned by the slot of each rank.
    """

    entry: tf.Tensor
    owner: tf.Tensor
    areas: tf.Tensor


def maskwise_maps(
    mask_logits: tf.Tensor, classes: segments.SlotClasses, peaks: SlotPeaks, settings: PostprocessingSettings
) -> dict[str, tf.Tensor]:
    """Panoptic, instance and score maps by painting masks in order of confidence.

    Args:
        mask_logits: float32 [B,h,w,N].
        classes: the class of each slot.
        peaks: the peaks of `mask_logits` at `settings.size`, for the threshold `settings.pixel_confidence`.
        settings: size of the maps and thresholds; `settings.maskwise` is set.

    Returns:
        `panoptic_pred` and `instance_pred` int32, `instance_scores` and `semantic_scores` float32, all [B,H,W].
        Instance ids count from 1 in order of confidence; a pixel of no segment has 1, as in DeepLab2.
    """
    options = settings.maskwise
    order = _by_confidence(mask_logits, classes, peaks, settings)
    ranked = segments.SlotClasses(*(segments.look_up(part, order) for part in classes))
    paintable = ranked.confidence >= tf.where(ranked.is_thing, options.thing_confidence, options.stuff_confidence)
    painting = _paint(peaks, order, paintable, settings.pixel_confidence, options.free_fraction)

    slots = mask_logits.shape[-1]
    instance_ids = tf.broadcast_to(tf.range(1, slots + 1), tf.shape(order))
    panoptic_ids = segments.panoptic_id_of_slots(ranked, painting.areas, instance_ids, settings)

    def as_map(table):
        return segments.look_up(segments.look_up(table, painting.owner), painting.entry)

    found = _any_detected(classes, options)
    return {
        "panoptic_pred": as_map(panoptic_ids),
        "instance_pred": as_map(segments.with_entry_for_none(instance_ids, 1)),
        "instance_scores": tf.where(found[:, tf.newaxis, tf.newaxis], peaks.score, 0.0),
        "semantic_scores": as_map(segments.with_entry_for_none(ranked.confidence, 0.0)),
    }


def _any_detected(classes: segments.SlotClasses, options: MaskwiseSettings) -> tf.Tensor:
    """Whether any slot of an image reaches the lower of the two class thresholds, bool [B]."""
    return tf.reduce_any(classes.confidence >= min(options.thing_confidence, options.stuff_confidence), -1)


def _by_confidence(
    mask_logits: tf.Tensor, classes: segments.SlotClasses, peaks: SlotPeaks, settings: PostprocessingSettings
) -> tf.Tensor:
    """Slots by descending confidence, int32 [B,N]."""
    options = settings.maskwise
    confidence = classes.confidence**options.class_weight
    if options.mask_weight:
        confidence *= _mask_confidence(mask_logits, peaks, settings) ** options.mask_weight
    return tf.argsort(confidence, direction="DESCENDING", stable=True)


def _mask_confidence(mask_logits: tf.Tensor, peaks: SlotPeaks, settings: PostprocessingSettings) -> tf.Tensor:
    """Mean probability over each slot's mask at the resolution of the logits, float32 [B,N]; 0 for an empty mask."""
    height, width, slots = mask_logits.shape[1:]
    cells = Cells.between((height, width), settings.size)
    if cells is None:
        grid = slot_peaks(mask_logits, (height, width), settings.pixel_confidence)
    else:
        grid = SlotPeaks(*(part[:, :: cells.rows, :: cells.columns] for part in peaks))
    first = tf.where(grid.score > settings.pixel_confidence, grid.first, slots)
    entries, scores = tf.stack([first, grid.second], 1), tf.stack([grid.score, grid.second_score], 1)
    areas = segments.sum_by_image(tf.ones_like(scores), entries, slots + 1)
    return tf.math.divide_no_nan(segments.sum_by_image(scores, entries, slots + 1), areas)[:, :-1]


def _paint(
    peaks: SlotPeaks, order: tf.Tensor, paintable: tf.Tensor, pixel_confidence: float, free_fraction: float
) -> Painting:
    """Paints masks in order. `order` and `paintable` are [B,N], the latter by rank."""
    slots = order.shape[-1]
    rank = segments.with_entry_for_none(tf.argsort(order), slots)
    first = tf.where(peaks.score > pixel_confidence, peaks.first, slots)
    one, other = segments.look_up(rank, first), segments.look_up(rank, peaks.second)
    entry = tf.minimum(one, other) * (slots + 1) + tf.maximum(one, other)
    counts = tf.reshape(segments.count_by_image(entry, (slots + 1) ** 2), [-1, slots + 1, slots + 1])
    accepted = _accepted(counts, paintable, free_fraction)

    number = tf.range(slots + 1)
    earlier, later = number[:, tf.newaxis], number[tf.newaxis, :]
    owner = tf.where(accepted[:, :, tf.newaxis], earlier, tf.where(accepted[:, tf.newaxis, :], later, slots))
    owned = tf.reduce_sum(counts * tf.cast(owner == earlier, tf.float32), 2)
    owned += tf.reduce_sum(counts * tf.cast(owner == later, tf.float32), 1)
    return Painting(entry, tf.reshape(owner, [-1, (slots + 1) ** 2]), owned[:, :-1])


def _accepted(counts: tf.Tensor, paintable: tf.Tensor, free_fraction: float) -> tf.Tensor:
    """Which masks are painted, bool [B,N+1] by rank; the last, "no mask", is False.

    Args:
        counts: float32 [B,N+1,N+1], pixels whose masks have these two ranks, the smaller first (N: no mask).
        paintable: bool [B,N], masks of sufficient class confidence.
        free_fraction: a mask is painted if more than this fraction of it is free.

    Whether a mask is accepted depends on those before it only, so repeating the rule for all masks at once settles at
    least one more mask each time, and all of them once nothing changes. A few rounds do.
    """
    counts = counts[:, :-1, :]
    areas = tf.reduce_sum(counts, 2) + tf.reduce_sum(counts, 1)[:, :-1]
    overlaps = counts[:, :, :-1]

    def more(accepted, changed):
        del accepted
        return changed

    def again(accepted, changed):
        del changed
        taken = tf.linalg.matvec(overlaps, tf.cast(accepted, tf.float32), transpose_a=True)
        now = paintable & (areas - taken > areas * free_fraction)
        return now, tf.reduce_any(now != accepted)

    accepted, _ = tf.while_loop(more, again, [paintable, tf.constant(True)])
    return tf.pad(accepted, [[0, 0], [0, 1]])
