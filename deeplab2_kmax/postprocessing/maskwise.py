"""Mask-wise post-processing: masks are painted from the most to the least confident.

This is how MaskFormer (arXiv:2107.06278), Panoptic SegFormer (arXiv:2109.03814) and CMT-DeepLab (arXiv:2206.08948) do
it. A mask is where a slot's probability exceeds a threshold. In descending order of confidence each mask takes those of
its pixels that are still free, or none if too few of them are.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing import segments
from deeplab2_kmax.postprocessing.painting import paint_one_by_one, paint_pairs
from deeplab2_kmax.postprocessing.settings import MaskwiseSettings, PostprocessingSettings
from deeplab2_kmax.postprocessing.upsampled_top2 import PixelPeaks, two_strongest_slots


def maskwise_maps(
    mask_logits: tf.Tensor,
    classes: segments.SlotClasses,
    settings: PostprocessingSettings,
    options: MaskwiseSettings,
) -> dict[str, tf.Tensor]:
    """Panoptic, instance, semantic and score maps by painting masks in order of confidence.

    Args:
        mask_logits: float32 [B, h, w, N].
        classes: the class of each slot.
        settings: size of the maps and thresholds.
        options: those of mask-wise post-processing.

    Returns:
        `panoptic_pred`, `instance_pred` and `semantic_pred` int32, `instance_scores` and `semantic_scores` float32,
        all [B, H, W]. Instance ids count from 1 in the order of confidence; pixels of no segment have 1, as in
        DeepLab2.
    """
    peaks = two_strongest_slots(mask_logits, settings.size, settings.pixel_confidence, portable=settings.portable)
    paintable = classes.confidence >= tf.where(classes.is_thing, options.thing_confidence, options.stuff_confidence)
    # From 1/3 on a pixel lies in two masks at most, as probabilities sum to 1: the peaks say all.
    if settings.pixel_confidence >= 1 / 3:
        rank = _rank(classes, _mask_confidence(peaks.grid, mask_logits.shape[-1], settings), options)
        painting = paint_pairs(peaks, rank, paintable, options.free_fraction, settings.portable)
    else:
        rank = _rank(classes, _any_mask_confidence(mask_logits, settings.pixel_confidence), options)
        painting = paint_one_by_one(
            mask_logits,
            peaks,
            rank,
            paintable,
            options.free_fraction,
            settings.pixel_confidence,
            settings.portable,
        )

    def of_owner(table: tf.Tensor) -> tf.Tensor:
        """What a table [B, N + 1] by slots says of the owner of each entry of the painting."""
        return segments.look_up(table, painting.owner)

    # A painting has few entries beside its pixels. So tables by slot become tables by entry first, and each pixel needs
    # one look-up only.
    maps = segments.look_up_together(
        {
            "panoptic_pred": of_owner(segments.panoptic_id_of_slots(classes, painting.areas, rank + 1, settings)),
            "instance_pred": of_owner(segments.with_entry_for_none(rank + 1, 1)),
            "semantic_pred": segments.look_up(classes.class_id, painting.best),
            "semantic_scores": of_owner(segments.with_entry_for_none(classes.confidence, 0.0)),
        },
        painting.entry,
        settings.portable,
    )
    # An image in which no slot reaches even the lower of the two thresholds counts as one without detections.
    lowest = min(options.thing_confidence, options.stuff_confidence)
    found = tf.reduce_any(classes.confidence >= lowest, -1)
    # Rounding may make a probability a little larger than 1.
    maps["instance_scores"] = tf.where(found[:, tf.newaxis, tf.newaxis], tf.minimum(peaks.score, 1.0), 0.0)
    return maps


def _rank(classes: segments.SlotClasses, mask_confidence: tf.Tensor, options: MaskwiseSettings) -> tf.Tensor:
    """The place of each slot in the descending order of confidence, int32 [B, N], from 0."""
    # The inverse of the order; a stable sort, so that equally confident slots keep their order.
    confidence = classes.confidence**options.class_weight * mask_confidence**options.mask_weight
    return tf.argsort(tf.argsort(confidence, direction="DESCENDING", stable=True))


def _mask_confidence(grid: PixelPeaks, slots: int, settings: PostprocessingSettings) -> tf.Tensor:
    """The mean probability over each slot's mask, at the resolution of the logits as in DeepLab2.

    Args:
        grid: the peaks at the pixels of the logits, [B, h, w].
        slots: N.
        settings: with the probability, at least 1/3, above which a slot's mask is.

    Returns:
        float32 [B, N], 0 for empty masks.
    """
    slot, score = tf.stack([grid.first, grid.second], 1), tf.stack([grid.score, grid.second_score], 1)
    in_mask = tf.cast(score > settings.pixel_confidence, tf.float32)
    total, area = (
        segments.sum_by_image(values, slot, slots, settings.portable) for values in (score * in_mask, in_mask)
    )
    return tf.math.divide_no_nan(total, area)


def _any_mask_confidence(mask_logits: tf.Tensor, pixel_confidence: float) -> tf.Tensor:
    """`_mask_confidence` for thresholds below 1/3, where a pixel may lie in more than two masks."""
    probabilities = tf.nn.softmax(mask_logits)
    in_mask = tf.cast(probabilities > pixel_confidence, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(probabilities * in_mask, [1, 2]), tf.reduce_sum(in_mask, [1, 2]))
