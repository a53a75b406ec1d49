"""Mask approximation: the reference mask of a center should cover the mask that the center predicts (docs/cmt.md)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from deeplab2_kmax.losses.settings import LossSettings
from deeplab2_kmax.losses.slots import SlotTargets


def mask_approximation_loss(
    reference_masks: Sequence[tf.Tensor], slots: SlotTargets, size: Sequence[int], settings: LossSettings
) -> tf.Tensor:
    """One minus the dice of reference masks R and the masks m of their slots, averaged over slots, then over layers.

        1 - 2 sum_p R m / (sum_p R + sum_p m)        over pixels p that have a mask

    Slots without a mask, and slots whose mask has no pixel at a layer's resolution, are left out of the average.

    Args:
        reference_masks: one for each layer, [B, h', w', N] in 0..1; h' and w' may differ from layer to layer.
        slots: the matching of the final output. It is brought to a layer's resolution by taking the nearest pixels.
        size: height and width of the final output's mask logits.
        settings: `mask_approximation` is set.

    Returns:
        float32 [B].
    """
    assert settings.mask_approximation is not None  # `total` computes no terms without settings.
    losses = [_of_layer(tf.cast(masks, tf.float32), slots, size, settings) for masks in reference_masks]
    return settings.mask_approximation.weight * tf.add_n(losses) / len(losses)


def _of_layer(reference: tf.Tensor, slots: SlotTargets, size: Sequence[int], settings: LossSettings) -> tf.Tensor:
    """The loss of one layer, [B]."""
    depth = reference.shape[-1]
    to_layer = _nearest_pixels(size, reference.shape[1:3])
    target = tf.one_hot(tf.gather(slots.pixel_slot, to_layer, axis=1), depth)
    has_mask = tf.gather(slots.pixel_has_mask, to_layer, axis=1)
    # Void and crowd pixels belong to no mask; what the reference mask says there is neither right nor wrong.
    reference = tf.reshape(reference, tf.shape(target)) * has_mask[:, :, tf.newaxis]
    overlap, area = tf.reduce_sum(reference * target, axis=1), tf.reduce_sum(target, axis=1)
    counted = area > 0.0
    if settings.mask_approximation_things_only:
        counted &= slots.slot_class < len(settings.thing_class_ids)
    dice = tf.math.divide_no_nan(2.0 * overlap, tf.reduce_sum(reference, axis=1) + area)
    counted = tf.cast(counted, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(counted * (1.0 - dice), axis=1), tf.reduce_sum(counted, axis=1))


def _nearest_pixels(size: Sequence[int], layer_size: Sequence[int]) -> tf.Tensor:
    """For each pixel of a layer's grid the index of the nearest pixel of the grid `size`, int32 [h' * w'].

    The corners of the two grids coincide, as everywhere in DeepLab2 (sizes are stride * k + 1).
    """

    def nearest(length: int, layer_length: int) -> list[int]:
        step = (length - 1) / max(layer_length - 1, 1)
        return [int(i * step + 0.5) for i in range(layer_length)]

    rows, columns = (nearest(*lengths) for lengths in zip(size, layer_size))
    return tf.constant([row * size[1] + column for row in rows for column in columns], tf.int32)
