"""PQ-style loss (MaX-DeepLab, arXiv:2012.00759, equations 8 to 10).

It asks each slot for a large product of its mask's dice and the probability of its class, as panoptic quality is
segmentation quality times recognition quality. By the product rule, each factor is trained with the other one as its
weight, through which no gradient flows.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.losses.mask_id import MaskStatistics
from deeplab2_kmax.losses.reduction import mean_of_non_zero
from deeplab2_kmax.losses.settings import ONE, LossSettings
from deeplab2_kmax.losses.slots import LEAST_WEIGHT, SlotTargets

# Added to numerator and denominator of dice, as in DeepLab2, so that the dice of two empty masks is 1 and not 0 / 0.
_SMOOTH = 1.0


def class_term(class_logits: tf.Tensor, slots: SlotTargets, settings: LossSettings) -> tf.Tensor:
    """Cross-entropy of the class head: matched slots learn the class of their mask, the others learn void.

    The weight of a matched slot is the dice of its mask; that of the others is `settings.unmatched_slot_weight`.

    Args:
        class_logits: float32 [O, B, N, C + 1] of all O outputs.
        slots: targets and weights, from the final output; they serve all outputs.
        settings: `pq_style` is set.

    Returns:
        float32 [O, B].
    """
    assert settings.pq_style is not None  # `total` computes no terms without settings.
    labels = tf.tile(slots.slot_class[None], [class_logits.shape[0], 1, 1])
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, class_logits)
    if settings.unmatched_slot_weight == ONE:
        unmatched = tf.ones_like(slots.void_ratio)
    else:
        # DeepLab2 weights an unmatched slot by the share of its predicted area that lies on void pixels, although a
        # comment there says otherwise. Its models were trained with this weight, and the golden values of the tests
        # include it. On data without void pixels, unmatched slots then learn next to nothing, and as a result things
        # are hardly learned; for such data there is ONE.
        unmatched = tf.maximum(slots.void_ratio, LEAST_WEIGHT)
    # No weight is 0, since `mean_of_non_zero` would divide by fewer slots then.
    share = settings.positive_weight
    weights = tf.where(
        slots.slot_is_matched, share * tf.maximum(slots.mask_dice, LEAST_WEIGHT), (1.0 - share) * unmatched
    )
    return settings.pq_style.weight * mean_of_non_zero(weights * cross_entropy)


def mask_dice_term(statistics: MaskStatistics, slots: SlotTargets, settings: LossSettings) -> tf.Tensor:
    """One minus the dice of each matched slot, weighted by the final output's probability of the right class.

    The sum is divided by the number of all slots and multiplied by `settings.positive_weight`, like the matched slots
    in the class term; this balances the two terms.

    Args:
        statistics: stacked over O outputs.
        slots: targets and weights, from the final output; they serve all outputs.
        settings: `pq_style` is set.

    Returns:
        float32 [O, B].
    """
    assert settings.pq_style is not None  # `total` computes no terms without settings.
    dice = (2.0 * statistics.overlap + _SMOOTH) / (statistics.predicted_area + slots.slot_area + _SMOOTH)
    weights = tf.where(slots.slot_is_matched, tf.maximum(slots.class_probability, LEAST_WEIGHT), 0.0)
    # Masks without a slot (more masks than slots) count as predicted empty. This is constant and has no gradient, but
    # it is part of the value that DeepLab2 gives.
    left_over = LEAST_WEIGHT * (1.0 - _SMOOTH / (slots.left_over_area + _SMOOTH))
    total = tf.reduce_sum(weights * (1.0 - dice), axis=-1) + tf.reduce_sum(left_over, axis=-1)
    return (settings.pq_style.weight * settings.positive_weight / dice.shape[-1]) * total
