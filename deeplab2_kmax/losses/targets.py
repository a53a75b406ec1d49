"""Ground-truth masks at the resolution of the mask logits, from the label maps of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.losses.settings import LossSettings


class GroundTruthMasks(NamedTuple):
    """The masks of a batch of B images with P = h * w pixels and up to M masks each.

    Masks do not overlap, so a pixel belongs to one mask at most. In each image the masks that exist, that is have a
    pixel at this resolution, come first, things before stuff; the rest of the axis is padding.

    Attributes:
        pixel_mask: int32 [B, P], mask of each pixel; -1 where there is none (void, crowd).
        pixel_mask_one_hot: float32 [B, P, M], the same as one-hot rows; zeros where there is no mask.
        pixel_is_labelled: float32 [B, P], 0 for pixels of the ignore label, else 1; crowds have 1, though no mask.
        pixel_is_thing: float32 [B, P], 1 for pixels of a thing instance, else 0.
        pixel_area: float32 [B, P], area in pixels of the pixel's mask, 0 where there is none.
        area: float32 [B, M], pixels of each mask, 0 for padding.
        exists: bool [B, M], false for padding.
        class_index: int32 [B, M], class in the order of the class head (things, then stuff); 0 for padding.
        most_masks: how many masks an image could have: the length of the instance list plus all stuff classes.
    """

    pixel_mask: tf.Tensor
    pixel_mask_one_hot: tf.Tensor
    pixel_is_labelled: tf.Tensor
    pixel_is_thing: tf.Tensor
    pixel_area: tf.Tensor
    area: tf.Tensor
    exists: tf.Tensor
    class_index: tf.Tensor
    most_masks: int


def strided_downsample(labels: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Takes every n-th pixel of label maps, such that the corners of input and result are the same pixels.

    Args:
        labels: [B, H, W].
        size: h and w of the result.

    Returns:
        [B, h, w].

    Raises:
        ConfigError: n = (H - 1) / (h - 1) is not the same whole number in both directions.
    """
    height, width = labels.shape[1:3]
    if (height, width) == tuple(size):
        return labels
    stride = max(1, (height - 1) // max(1, size[0] - 1))
    if (
        ((height - 1) // stride + 1, (width - 1) // stride + 1) != tuple(size)
        or (height - 1) % stride
        or ((width - 1) % stride)
    ):
        raise ConfigError(
            f"cannot bring labels of {height} x {width} to the network's {size[0]} x {size[1]} by a whole stride: "
            f"expected (height - 1) and (width - 1) to be the same multiple of {size[0] - 1} and {size[1] - 1}; "
            "choose a crop_size of the form stride * k + 1"
        )
    return labels[:, ::stride, ::stride]


def _table(class_ids: Sequence[int], values: Sequence[int]) -> np.ndarray:
    """A table of values for `_look_up`: entry `class id + 1` holds the value of a class, all others -1.

    The first entry is for id -1, padding; the last one is for ids beyond the largest.
    """
    table = np.full(max(class_ids, default=0) + 3, -1, np.int32)
    table[np.asarray(class_ids, np.int32) + 1] = values
    return table


def _look_up(table: np.ndarray, class_ids: tf.Tensor) -> tf.Tensor:
    """The values of class ids in a table; -1 for ids that are not in it."""
    return tf.gather(tf.constant(table), tf.clip_by_value(class_ids + 1, 0, len(table) - 1))


def _mask_of_pixels(semantic: tf.Tensor, thing_id: tf.Tensor, settings: LossSettings, max_things: int) -> tf.Tensor:
    """The mask of each pixel, int32 [B, P]: things are 0 to max_things - 1, stuff classes follow, -1 is no mask.

    Pixels of a thing class without an instance (crowd) have none, as the table holds stuff classes only.
    """
    stuff = settings.stuff_class_ids
    by_class = _look_up(_table(stuff, range(max_things, max_things + len(stuff))), semantic)
    return tf.where((thing_id >= 0) & (thing_id < max_things), thing_id, by_class)


def _count_pixels(pixel_mask: tf.Tensor, masks: int) -> tf.Tensor:
    """The area of each mask in pixels, float32 [B, masks]."""
    batch = tf.shape(pixel_mask)[0]
    # Masks are numbered consecutively over the batch, so that one sum serves all images. The sum leaves out -1.
    segments = tf.where(pixel_mask >= 0, pixel_mask + masks * tf.range(batch)[:, None], -1)
    areas = tf.math.unsorted_segment_sum(tf.ones_like(pixel_mask, tf.float32), segments, batch * masks)
    return tf.reshape(areas, [batch, masks])


def ground_truth_masks(
    targets: Mapping[str, tf.Tensor], size: Sequence[int], settings: LossSettings, crop_masks: bool
) -> GroundTruthMasks:
    """The masks of a batch at the resolution of the outputs.

    Args:
        targets: `semantic_gt` int32 [B, H, W], class ids; `thing_id_mask_gt` int32 [B, H, W], instances counted from
            0, -1 for none; `thing_id_class_gt` [B, T], class id of each instance, -1 for padding.
        size: h and w of the outputs.
        settings: classes and ignore label.
        crop_masks: whether to cut the mask axis to the largest number of masks that an image of the batch has (but at
            least 1), which is several times faster; otherwise M is static, T + number of stuff classes, as XLA wants.

    Returns:
        The masks, with P = h * w pixels in each image.

    Raises:
        ConfigError: the sizes of labels and outputs do not fit (see `strided_downsample`).
    """
    thing_class = tf.cast(targets["thing_id_class_gt"], tf.int32)
    batch, max_things = tf.shape(thing_class)[0], thing_class.shape[1]
    pixels = size[0] * size[1]
    semantic = tf.reshape(strided_downsample(targets["semantic_gt"], size), [batch, pixels])
    thing_id = tf.reshape(strided_downsample(targets["thing_id_mask_gt"], size), [batch, pixels])
    pixel_mask = _mask_of_pixels(semantic, thing_id, settings, max_things)

    stuff_class = tf.constant(settings.stuff_class_ids, tf.int32, [1, len(settings.stuff_class_ids)])
    mask_class = tf.concat([thing_class, tf.tile(stuff_class, [batch, 1])], axis=1)
    class_ids = settings.thing_class_ids + settings.stuff_class_ids
    class_index = _look_up(_table(class_ids, range(len(class_ids))), mask_class)
    masks = max_things + len(settings.stuff_class_ids)
    area = _count_pixels(pixel_mask, masks)
    # Small masks may have no pixel left at this resolution. They are not matched, as in DeepLab2. (Areas are whole
    # numbers, though floats: hence 0.5.)
    exists = (area > 0.5) & (class_index >= 0)

    # Masks that exist move to the front, in order, so that padding can be cut off and matching can stop early.
    kept = tf.maximum(tf.reduce_max(tf.math.count_nonzero(exists, axis=1, dtype=tf.int32)), 1) if crop_masks else masks
    order = tf.argsort(tf.cast(~exists, tf.int32), axis=1, stable=True)[:, :kept]
    rank = tf.where(exists, tf.cumsum(tf.cast(exists, tf.int32), axis=1) - 1, -1)
    # `rank` is the new place of each old mask; gathering takes no -1, hence the maximum and the `where` after it.
    new_mask = tf.gather(rank, tf.maximum(pixel_mask, 0), batch_dims=1)
    pixel_mask = tf.where(pixel_mask >= 0, new_mask, -1)
    exists = tf.gather(exists, order, batch_dims=1)
    area = tf.where(exists, tf.gather(area, order, batch_dims=1), 0.0)
    pixel_area = tf.where(pixel_mask >= 0, tf.gather(area, tf.maximum(pixel_mask, 0), batch_dims=1), 0.0)
    return GroundTruthMasks(
        pixel_mask=pixel_mask,
        pixel_mask_one_hot=tf.one_hot(pixel_mask, kept),
        pixel_is_labelled=tf.cast(semantic != settings.ignore_label, tf.float32),
        pixel_is_thing=tf.cast(thing_id != -1, tf.float32),
        pixel_area=pixel_area,
        area=area,
        exists=exists,
        class_index=tf.where(exists, tf.gather(class_index, order, batch_dims=1), 0),
        most_masks=masks,
    )
