"""What each mask slot should become: the matching of the final output, in the order of the slots.

The losses that follow do not care in which order masks stand, so ground truth is gathered into slot order once, and the
predictions of all outputs stay where they are.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.losses.matching import match
from deeplab2_kmax.losses.targets import GroundTruthMasks

_DENOMINATOR_EPSILON = 1e-5
# DeepLab2 pads a problem that may have more masks than slots with the cost -999, and so in float32 tells similarities
# apart only to this step. Young models have similarities of a few steps: without it other slots would be matched.
_SIMILARITY_STEP = 2.0**-14
# Least weight of an element that counts; 0 would take it out of the mean.
LEAST_WEIGHT = 1e-5


class SlotTargets(NamedTuple):
    """Targets of B images with P pixels and N slots. A slot that matches no mask should say void.

    pixel_slot: [B, P] i32, slot of the pixel's mask; -1: the pixel has no mask, or its mask has no slot.
    pixel_has_mask: [B, P] f32. pixel_is_left_over: [B, P] f32, 1 where the pixel's mask has no slot.
    slot_is_matched: [B, N] bool. slot_area: [B, N] f32, pixels of the slot's mask, 0 where unmatched.
    slot_class: [B, N] i32, class in the order of the class head, the last one (void) where unmatched.
    class_probability: [B, N] f32, what the final output gave the mask's class, 0 where unmatched.
    mask_dice: [B, N] f32, dice of the final output with the slot's mask, 0 where unmatched.
    void_ratio: [B, N] f32, share of the slot's predicted area that lies on void pixels.
    left_over_area: [B, M] f32, pixels of the masks without a slot, 0 for others.
    """

    pixel_slot: tf.Tensor
    pixel_has_mask: tf.Tensor
    pixel_is_left_over: tf.Tensor
    slot_is_matched: tf.Tensor
    slot_area: tf.Tensor
    slot_class: tf.Tensor
    class_probability: tf.Tensor
    mask_dice: tf.Tensor
    void_ratio: tf.Tensor
    left_over_area: tf.Tensor


def mask_similarity(masks: GroundTruthMasks, mask_probabilities: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Dice of each ground-truth mask with each slot [B, M, N], and the share of void under each slot [B, N].

    mask_probabilities: [B, P, N] f32. Dice counts labelled pixels only: 2 * overlap / (area + predicted area).
    """
    labelled = masks.pixel_is_labelled[:, :, None]
    weights = tf.concat([masks.pixel_mask_one_hot * labelled, labelled, 1.0 - labelled], axis=2)
    sums = tf.matmul(weights, mask_probabilities, transpose_a=True)
    overlap, predicted, on_void = sums[:, :-2], sums[:, -2:-1], sums[:, -1]
    dice = overlap / ((masks.area[:, :, None] + predicted) / 2.0 + _DENOMINATOR_EPSILON)
    return dice, on_void / (predicted[:, 0] + on_void + _DENOMINATOR_EPSILON)


def match_slots(
    masks: GroundTruthMasks, mask_probabilities: tf.Tensor, class_logits: tf.Tensor, backend: str
) -> SlotTargets:
    """Matches by the similarity of MaX-DeepLab (section 3.3): mask dice times probability of the right class.

    mask_probabilities: [B, P, N] f32 and class_logits: [B, N, C + 1] f32 of the final output. No gradient flows.
    Masks that are left over teach no slot a class. (DeepLab2 adds their classes to the target of slot 0; this is the
    one place where the losses differ from it on purpose.)
    """
    dice, void_ratio = mask_similarity(masks, tf.stop_gradient(mask_probabilities))
    class_probabilities = tf.nn.softmax(tf.stop_gradient(class_logits), axis=-1)
    by_mask = tf.gather(tf.transpose(class_probabilities, [0, 2, 1]), masks.class_index, batch_dims=1)
    slots, void = class_logits.shape[1], class_logits.shape[2] - 1
    similarity = dice * by_mask
    if masks.most_masks > slots:
        similarity = tf.round(similarity / _SIMILARITY_STEP) * _SIMILARITY_STEP
    slot_of_mask = match(-similarity, masks.exists, backend)
    matched = tf.one_hot(slot_of_mask, slots)
    is_matched = tf.reduce_max(matched, axis=1) > 0.0
    slot_class = tf.einsum("bmn,bm->bn", matched, tf.cast(masks.class_index, tf.float32))
    has_mask = masks.pixel_mask >= 0
    pixel_slot = tf.where(has_mask, tf.gather(slot_of_mask, tf.maximum(masks.pixel_mask, 0), batch_dims=1), -1)
    return SlotTargets(
        pixel_slot=pixel_slot,
        pixel_has_mask=tf.cast(has_mask, tf.float32),
        pixel_is_left_over=tf.cast(has_mask & (pixel_slot < 0), tf.float32),
        slot_is_matched=is_matched,
        slot_area=tf.einsum("bmn,bm->bn", matched, masks.area),
        slot_class=tf.where(is_matched, tf.cast(slot_class + 0.5, tf.int32), void),
        class_probability=tf.reduce_sum(matched * by_mask, axis=1),
        mask_dice=tf.reduce_sum(matched * dice, axis=1),
        void_ratio=void_ratio,
        left_over_area=tf.where(slot_of_mask < 0, masks.area, 0.0),
    )
