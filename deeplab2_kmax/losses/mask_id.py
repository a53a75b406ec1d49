"""Softmax over mask slots at each pixel: mask-id cross-entropy, and the sums the dice term needs."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.losses.reduction import NEVER, mean_of_non_zero
from deeplab2_kmax.losses.settings import TermSettings
from deeplab2_kmax.losses.slots import SlotTargets
from deeplab2_kmax.losses.targets import GroundTruthMasks


class MaskStatistics(NamedTuple):
    """Of one output, with B images, P pixels, N slots; or of O outputs, stacked as a first axis.

    cross_entropy: [B, P] f32, of each pixel with its slot; 0 without a mask. For a mask that has no slot (more masks
        than slots) it is that of a slot with the constant logit -99999, as in DeepLab2.
    predicted_area: [B, N] f32, sum of probabilities over pixels that have a mask.
    overlap: [B, N] f32, the same over the pixels of the slot's own mask.
    """

    cross_entropy: tf.Tensor
    predicted_area: tf.Tensor
    overlap: tf.Tensor


def mask_statistics(mask_logits: tf.Tensor, log_probabilities: tf.Tensor, slots: SlotTargets) -> MaskStatistics:
    """Statistics of one output with their gradient in one pass over pixels x slots.

    As in DeepLab2, a pixel without a mask has no loss and yet a gradient, that of -log of a slot it has no logit for:
    weighted (crowds are, void is not), it lowers the logits of the slots that claim it.

    mask_logits: [B, P, N] f32, what the gradient flows to. log_probabilities: its log-softmax over slots.
    """
    depth = mask_logits.shape[2]
    has_mask = slots.pixel_has_mask
    target = tf.one_hot(slots.pixel_slot, depth)

    @tf.custom_gradient
    def statistics(logits):
        probabilities = tf.exp(log_probabilities)
        log_partition = logits[:, :, 0] - log_probabilities[:, :, 0]
        cross_entropy = (log_partition - NEVER) * slots.pixel_is_left_over - tf.reduce_sum(
            log_probabilities * target, axis=2
        )
        own = tf.reduce_sum(target * probabilities, axis=2)
        predicted_area = tf.einsum("bp,bpn->bn", has_mask, probabilities)
        overlap = tf.einsum("bp,bpn->bn", own, target)

        def gradient(by_cross_entropy, by_area, by_overlap):
            # d own / d logits = own * (target - p); d p_s / d logits_k = p_s * ([s = k] - p_k).
            by_own = own * tf.einsum("bpn,bn->bp", target, by_overlap)
            mean_by_area = tf.einsum("bpn,bn->bp", probabilities, by_area)
            row = by_cross_entropy - has_mask * mean_by_area - by_own
            scale = row[:, :, None] + has_mask[:, :, None] * by_area[:, None, :]
            return probabilities * scale + target * (by_own - by_cross_entropy)[:, :, None]

        return (cross_entropy, predicted_area, overlap), gradient

    return MaskStatistics(*statistics(mask_logits))


def mask_id_cross_entropy(statistics: MaskStatistics, masks: GroundTruthMasks, term: TermSettings) -> tf.Tensor:
    """Mask-ID cross-entropy (MaX-DeepLab, section 3.4), averaged over labelled pixels. Returns [B] or [O, B] f32."""
    return term.weight * mean_of_non_zero(statistics.cross_entropy * masks.pixel_is_labelled, term.top_k)
