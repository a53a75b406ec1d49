"""Mask approximation: the reference mask of a center should cover the mask that the center predicts (docs/cmt.md)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from deeplab2_kmax.losses.settings import LossSettings
from deeplab2_kmax.losses.slots import SlotTargets


def mask_approximation_loss(
    reference_masks: Sequence[tf.Tensor], slots: SlotTargets, size: Sequence[int], settings: LossSettings
) -> tf.Tensor:
    """One minus dice of reference masks R with their slots' masks m, averaged over slots, then over layers.

        1 - 2 sum_p R m / (sum_p R + sum_p m)        over pixels p that have a mask

    reference_masks: of each layer [B, h', w', N] f32 in 0 .. 1. slots: the matching of the final output, at `size` =
    (h, w). Masks are brought to a layer's resolution by taking the nearest pixel; slots whose mask has none there, and
    slots without a mask, do not count. Returns [B] f32.
    """
    losses = [_of_layer(tf.cast(masks, tf.float32), slots, size, settings) for masks in reference_masks]
    return settings.mask_approximation.weight * tf.add_n(losses) / len(losses)


def _of_layer(reference: tf.Tensor, slots: SlotTargets, size: Sequence[int], settings: LossSettings) -> tf.Tensor:
    depth = reference.shape[-1]
    to_layer = _nearest_pixels(size, reference.shape[1:3])
    target = tf.one_hot(tf.gather(slots.pixel_slot, to_layer, axis=1), depth)
    has_mask = tf.gather(slots.pixel_has_mask, to_layer, axis=1)
    reference = tf.reshape(reference, tf.shape(target)) * has_mask[:, :, tf.newaxis]
    overlap, area = tf.reduce_sum(reference * target, axis=1), tf.reduce_sum(target, axis=1)
    counted = area > 0.0
    if settings.mask_approximation_things_only:
        counted &= slots.slot_class < len(settings.thing_class_ids)
    dice = tf.math.divide_no_nan(2.0 * overlap, tf.reduce_sum(reference, axis=1) + area)
    counted = tf.cast(counted, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(counted * (1.0 - dice), axis=1), tf.reduce_sum(counted, axis=1))


def _nearest_pixels(size: Sequence[int], layer_size: Sequence[int]) -> tf.Tensor:
    """[h' * w'] i32: for each pixel of a layer's grid the index of the nearest one of `size`; corners coincide."""

    def nearest(length: int, layer_length: int) -> list[int]:
        step = (length - 1) / max(layer_length - 1, 1)
        return [int(i * step + 0.5) for i in range(layer_length)]

    rows, columns = (nearest(*lengths) for lengths in zip(size, layer_size))
    return tf.constant([row * size[1] + column for row in rows for column in columns], tf.int32)
