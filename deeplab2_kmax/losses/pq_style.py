"""PQ-style loss (MaX-DeepLab, equations 8 to 10): recognition and segmentation quality, each weighted by the other."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.losses.mask_id import MaskStatistics
from deeplab2_kmax.losses.reduction import mean_of_non_zero
from deeplab2_kmax.losses.settings import ONE, LossSettings
from deeplab2_kmax.losses.slots import LEAST_WEIGHT, SlotTargets

# Keeps the dice of empty masks defined.
_SMOOTH = 1.0


def class_term(class_logits: tf.Tensor, slots: SlotTargets, settings: LossSettings) -> tf.Tensor:
    """Cross-entropy of the class head: matched slots weigh as their mask's dice, the others by unmatched_slot_weight.

    class_logits: [O, B, N, C + 1] f32 of all outputs; targets and weights come from the final one. Returns [O, B] f32.
    """
    labels = tf.tile(slots.slot_class[None], [class_logits.shape[0], 1, 1])
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, class_logits)
    if settings.unmatched_slot_weight == ONE:
        unmatched = tf.ones_like(slots.void_ratio)
    else:
        unmatched = tf.maximum(slots.void_ratio, LEAST_WEIGHT)
    share = settings.positive_weight
    weights = tf.where(
        slots.slot_is_matched, share * tf.maximum(slots.mask_dice, LEAST_WEIGHT), (1.0 - share) * unmatched
    )
    return settings.pq_style.weight * mean_of_non_zero(weights * cross_entropy)


def mask_dice_term(statistics: MaskStatistics, slots: SlotTargets, settings: LossSettings) -> tf.Tensor:
    """One minus dice of each matched slot, weighted by the final output's probability of the right class.

    statistics: stacked over O outputs. Returns [O, B] f32. Divided by the number of slots, and with the share of
    matched slots as its factor, it balances the class term.
    """
    dice = (2.0 * statistics.overlap + _SMOOTH) / (statistics.predicted_area + slots.slot_area + _SMOOTH)
    weights = tf.where(slots.slot_is_matched, tf.maximum(slots.class_probability, LEAST_WEIGHT), 0.0)
    # Masks that got no slot are predicted as empty; constant, but part of DeepLab2's figure.
    left_over = LEAST_WEIGHT * (1.0 - _SMOOTH / (slots.left_over_area + _SMOOTH))
    total = tf.reduce_sum(weights * (1.0 - dice), axis=-1) + tf.reduce_sum(left_over, axis=-1)
    return (settings.pq_style.weight * settings.positive_weight / dice.shape[-1]) * total
