"""The softmax over mask slots at each pixel: mask-ID cross-entropy, and the sums that the dice term needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.losses.reduction import EXCLUDED_LOGIT, mean_of_non_zero
from deeplab2_kmax.losses.settings import TermSettings
from deeplab2_kmax.losses.slots import SlotTargets
from deeplab2_kmax.losses.targets import GroundTruthMasks


class MaskStatistics(NamedTuple):
    """Statistics of one output with B images, P pixels and N slots, or of O outputs, stacked along a new first axis.

    Attributes:
        cross_entropy: float32 [B, P], -log of the probability of the pixel's slot; 0 for pixels without a mask. Pixels
            of a mask without a slot (more masks than slots) have the value of a slot with the constant logit -99999,
            as in DeepLab2.
        predicted_area: float32 [B, N], sum of a slot's probabilities over the pixels that have a mask.
        overlap: float32 [B, N], the same sum over the pixels of the slot's own mask.
    """

    cross_entropy: tf.Tensor
    predicted_area: tf.Tensor
    overlap: tf.Tensor


def mask_statistics(mask_logits: tf.Tensor, log_probabilities: tf.Tensor, slots: SlotTargets) -> MaskStatistics:
    """The statistics of one output, with a gradient of their own.

    Automatic differentiation would keep and run over several tensors with an entry for each pixel and slot; this
    gradient makes one pass over them, of which only `log_probabilities` is kept.

    As in DeepLab2, pixels without a mask have the cross-entropy 0 and yet a gradient: that of a pixel that belongs to
    none of the slots, which lowers the logits of the slots that claim it. It reaches crowd pixels only, as void pixels
    are weighted by 0 afterwards.

    Args:
        mask_logits: float32 [B, P, N], where the gradient flows to.
        log_probabilities: float32 [B, P, N], their log-softmax over slots.
        slots: the slot of each pixel.

    Returns:
        Statistics of the output, with B images, P pixels and N slots.
    """
    depth = mask_logits.shape[2]
    has_mask = slots.pixel_has_mask
    target = tf.one_hot(slots.pixel_slot, depth)

    @tf.custom_gradient
    def statistics(logits: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Callable[..., tf.Tensor]]:
        probabilities = tf.exp(log_probabilities)
        # log(sum of exp(logits)) is the same for every slot of a pixel: logit - log probability.
        log_partition = logits[:, :, 0] - log_probabilities[:, :, 0]
        cross_entropy = (log_partition - EXCLUDED_LOGIT) * slots.pixel_is_left_over - tf.reduce_sum(
            log_probabilities * target, axis=2
        )
        own = tf.reduce_sum(target * probabilities, axis=2)
        predicted_area = tf.einsum("bp,bpn->bn", has_mask, probabilities)
        overlap = tf.einsum("bp,bpn->bn", own, target)

        def gradient(by_cross_entropy: tf.Tensor, by_area: tf.Tensor, by_overlap: tf.Tensor) -> tf.Tensor:
            # Arguments: derivatives of the loss by each statistic. With p the probabilities of a pixel,
            #   d cross-entropy / d logits = p - target,   d own / d logits = own * (target - p),
            #   d p_s / d logit_k = p_s * ([s = k] - p_k).
            # Sorted by what multiplies p and what multiplies the target, the sum of all is p * scale + target * (...).
            by_own = own * tf.einsum("bpn,bn->bp", target, by_overlap)
            mean_by_area = tf.einsum("bpn,bn->bp", probabilities, by_area)
            row = by_cross_entropy - has_mask * mean_by_area - by_own
            scale = row[:, :, None] + has_mask[:, :, None] * by_area[:, None, :]
            return probabilities * scale + target * (by_own - by_cross_entropy)[:, :, None]

        return (cross_entropy, predicted_area, overlap), gradient

    return MaskStatistics(*statistics(mask_logits))


def mask_id_cross_entropy(statistics: MaskStatistics, masks: GroundTruthMasks, term: TermSettings) -> tf.Tensor:
    """Mask-ID cross-entropy (MaX-DeepLab, section 3.4), averaged over labelled pixels.

    Args:
        statistics: of one output, or stacked over O outputs.
        masks: ground truth.
        term: weight, and share of the pixels that count.

    Returns:
        float32 [B] or [O, B].
    """
    return term.weight * mean_of_non_zero(statistics.cross_entropy * masks.pixel_is_labelled, term.top_k)
