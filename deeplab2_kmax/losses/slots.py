"""What each mask slot should learn: ground truth in the order of the slots, by the matching of the final output.

The losses do not depend on the order of masks. So ground truth, which is small, is brought into the order of the slots
once, and the predictions of all outputs, which are large, stay as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.losses.matching import match
from deeplab2_kmax.losses.targets import GroundTruthMasks

_DENOMINATOR_EPSILON = 1e-5
# Where an image may have more masks than slots, DeepLab2 pads the matching problem with costs of -999 and solves it in
# float32, which near 1000 tells numbers apart in steps of 2^-14. An untrained model has similarities of a few such
# steps, many of them equal once rounded. Without the same rounding its masks would get other slots than in DeepLab2.
_SIMILARITY_STEP = 2.0**-14
# The least weight of an element that counts, as in DeepLab2. A weight of 0 would take it out of `mean_of_non_zero`.
LEAST_WEIGHT = 1e-5


class SlotTargets(NamedTuple):
    """The targets of B images with P pixels, N slots and M masks. Slots without a mask should learn to say void.

    A mask is left over where there are more masks than slots and it got none.

    Attributes:
        pixel_slot: int32 [B, P], the slot of the pixel's mask; -1 where the pixel has no mask or its mask has no slot.
        pixel_has_mask: float32 [B, P], 1 where the pixel has a mask, left over or not; else 0.
        pixel_is_left_over: float32 [B, P], 1 where the pixel's mask is left over; else 0.
        slot_is_matched: bool [B, N], whether the slot has a mask.
        slot_area: float32 [B, N], pixels of the slot's mask, 0 where unmatched.
        slot_class: int32 [B, N], class in the order of the class head; the last one, void, where unmatched.
        class_probability: float32 [B, N], the final output's probability of the mask's class, 0 where unmatched.
        mask_dice: float32 [B, N], dice of the final output's mask and the slot's mask, 0 where unmatched.
        void_ratio: float32 [B, N], share of the slot's predicted area that lies on void pixels.
        left_over_area: float32 [B, M], pixels of the masks that are left over, 0 for the others.
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
    """Compares each ground-truth mask with the mask that each slot predicts.

    Args:
        masks: ground truth.
        mask_probabilities: float32 [B, P, N].

    Returns:
        float32 [B, M, N], dice of masks and slots, 2 * overlap / (area + predicted area), over labelled pixels only;
        float32 [B, N], the share of each slot's predicted area that lies on void pixels.
    """
    labelled = masks.pixel_is_labelled[:, :, None]
    # The overlaps with each mask and the areas on labelled and on void pixels, in one pass over pixels and slots.
    weights = tf.concat([masks.pixel_mask_one_hot * labelled, labelled, 1.0 - labelled], axis=2)
    sums = tf.matmul(weights, mask_probabilities, transpose_a=True)
    overlap, predicted, on_void = sums[:, :-2], sums[:, -2:-1], sums[:, -1]
    dice = overlap / ((masks.area[:, :, None] + predicted) / 2.0 + _DENOMINATOR_EPSILON)
    return dice, on_void / (predicted[:, 0] + on_void + _DENOMINATOR_EPSILON)


def match_slots(
    masks: GroundTruthMasks, mask_probabilities: tf.Tensor, class_logits: tf.Tensor, backend: str
) -> SlotTargets:
    """Matches masks with slots by MaX-DeepLab's similarity (section 3.3): mask dice times probability of the class.

    Masks that are left over teach no slot a class. (DeepLab2 adds their classes to the target of slot 0. This is the
    one place where the losses differ from DeepLab2's on purpose.)

    Args:
        masks: ground truth.
        mask_probabilities: float32 [B, P, N] of the final output. No gradient flows through this or `class_logits`.
        class_logits: float32 [B, N, C + 1] of the final output.
        backend: see `matching.match`.

    Returns:
        The targets of all slots. They serve the final output and the auxiliary ones.
    """
    dice, void_ratio = mask_similarity(masks, tf.stop_gradient(mask_probabilities))
    class_probabilities = tf.nn.softmax(tf.stop_gradient(class_logits), axis=-1)
    by_mask = tf.gather(tf.transpose(class_probabilities, [0, 2, 1]), masks.class_index, batch_dims=1)
    slots, void = class_logits.shape[1], class_logits.shape[2] - 1
    similarity = dice * by_mask
    if masks.most_masks > slots:
        similarity = tf.round(similarity / _SIMILARITY_STEP) * _SIMILARITY_STEP
    slot_of_mask = match(-similarity, masks.exists, backend)
    # A product with this brings values from the order of masks into that of slots. Masks without a slot (-1) have a row
    # of zeros. On TPUs such products are faster than scattered writes.
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
        # The class has been through a product of floats and may be a little below a whole number; casts cut off.
        slot_class=tf.where(is_matched, tf.cast(slot_class + 0.5, tf.int32), void),
        class_probability=tf.reduce_sum(matched * by_mask, axis=1),
        mask_dice=tf.reduce_sum(matched * dice, axis=1),
        void_ratio=void_ratio,
        left_over_area=tf.where(slot_of_mask < 0, masks.area, 0.0),
    )
