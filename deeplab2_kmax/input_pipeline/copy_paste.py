"""Panoptic copy-paste (kMaX-DeepLab, ECCV 2022, appendix): segments of one training crop are put onto another.

The pasted crop is scaled, cropped and coloured like any other, at a scale of its own. Of its segments a random number
is kept, each as likely as any other; by kind - things, stuff, void - all of them or none may be kept instead.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.input_pipeline.augmentation import Crop
from deeplab2_kmax.input_pipeline.settings import CopyPasteSettings

_OTHER, _VOID, _STUFF, _THING = range(4)


def paste(
    image: tf.Tensor,
    label: tf.Tensor,
    source: Crop,
    seed: tf.Tensor,
    descriptor: DatasetDescriptor,
    settings: CopyPasteSettings,
    max_thing_id: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts drawn segments of another image onto one; see `paste_segments`.

    Args:
        image: [h, w, 3] float32, of known shape.
        label: [h, w] int32 panoptic ids.
        source: what the other image shows in a crop of the same size.
        seed: [2] int64; equal seeds draw equal segments.
        max_thing_id: the most thing instances an image may hold.

    Returns:
        Image and label.
    """
    ids, index = tf.unique(tf.reshape(source.label, [-1]))
    count = tf.size(ids)
    # The padding of the source counts as a segment, too, though it is never pasted.
    is_padded = tf.cast(tf.size(index) < tf.size(label), tf.int32)
    drawn = draw_kept(seed, count + is_padded)[:count]
    segments = Segments(ids, index, keep_by_kind(ids, drawn, descriptor, settings))
    return paste_segments(image, label, source, segments, descriptor, max_thing_id)


class Segments(NamedTuple):
    """Segments to paste from.

    Attributes:
        ids: [S] int32 distinct panoptic ids.
        index: [P] int32, for each pixel of the flattened label its segment.
        kept: [S] bool, whether it is pasted.
    """

    ids: tf.Tensor
    index: tf.Tensor
    kept: tf.Tensor


def paste_segments(
    image: tf.Tensor,
    label: tf.Tensor,
    source: Crop,
    segments: Segments,
    descriptor: DatasetDescriptor,
    max_thing_id: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts the kept segments onto an image [h, w, 3] float32 and its label [h, w] int32, instances renumbered.

    Where that cannot be - an instance number of half the label divisor or more, or more than `max_thing_id` things in
    the end - the image is returned as it is. DeepLab2 ends the training there.
    """
    # From here on only the pixels that are pasted are worked on: their places in the source and in the crop.
    pixels = tf.cast(tf.where(tf.gather(segments.kept, segments.index))[:, 0], tf.int32)
    source_width, width = tf.shape(source.label)[1], tf.shape(label)[1]
    rows, columns = pixels // source_width + source.place[0], pixels % source_width + source.place[1]
    places = (rows * width + columns)[:, tf.newaxis]
    ids = tf.gather(pasted_ids(segments.ids, descriptor), tf.gather(segments.index, pixels))
    merged = tf.tensor_scatter_nd_update(tf.reshape(label, [-1]), places, ids)
    fits = _fits(label, merged, segments, descriptor, max_thing_id)
    count = tf.where(fits, tf.size(pixels), 0)
    colours = tf.gather(tf.reshape(source.image, [-1, 3]), pixels[:count])
    merged_image = tf.tensor_scatter_nd_update(tf.reshape(image, [-1, 3]), places[:count], colours)
    merged_label = tf.where(fits, tf.reshape(merged, label.shape), label)
    return tf.reshape(merged_image, image.shape), merged_label


def draw_kept(seed: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Which of `count` segments are kept: [count] bool, a random number from none to all, a random choice of them.

    Args:
        seed: [2] int64.
        count: scalar int32.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    number = tf.random.stateless_uniform([], seeds[0], 0, count + 1, tf.int32)
    ranks = tf.argsort(tf.argsort(tf.random.stateless_uniform([count], seeds[1])))
    return ranks < number


def keep_by_kind(
    ids: tf.Tensor, drawn: tf.Tensor, descriptor: DatasetDescriptor, settings: CopyPasteSettings
) -> tf.Tensor:
    """The draw overruled for kinds of which all or none are wanted.

    Args:
        ids: [S] int32 distinct panoptic ids.
        drawn: [S] bool, of `draw_kept`.

    Returns:
        [S] bool, the segments to paste.
    """
    choices = {_OTHER: "random", _VOID: settings.void, _STUFF: settings.stuff, _THING: settings.thing}
    kinds = _kinds(ids, descriptor)
    always = tf.gather([choices[kind] == "all" for kind in sorted(choices)], kinds)
    maybe = tf.gather([choices[kind] != "none" for kind in sorted(choices)], kinds)
    return (drawn | always) & maybe


def pasted_ids(ids: tf.Tensor, descriptor: DatasetDescriptor) -> tf.Tensor:
    """Ids [S] int32 with instances counted down from divisor - 2, so that they meet none of the other image's."""
    divisor = descriptor.label_divisor
    instance = ids % divisor
    return tf.where(instance == 0, ids, ids - instance + (divisor - 1 - instance))


def _fits(
    label: tf.Tensor, merged: tf.Tensor, segments: Segments, descriptor: DatasetDescriptor, max_thing_id: int
) -> tf.Tensor:
    """Scalar bool: instances stay told apart, and there are no more than `max_thing_id` of them."""
    divisor = descriptor.label_divisor
    own_ids = _distinct(label)
    instances = tf.concat([own_ids, segments.ids], 0) % divisor
    distinct = tf.reduce_max(instances) < divisor // 2
    at_most = _count_instances(own_ids, divisor) + _count_instances(segments.ids[segments.kept], divisor)
    few = tf.cond(
        at_most <= max_thing_id,
        lambda: tf.constant(True),
        # Some may be covered altogether.
        lambda: _count_instances(_distinct(merged), divisor) <= max_thing_id,
    )
    return distinct & few


def _distinct(label: tf.Tensor) -> tf.Tensor:
    return tf.unique(tf.reshape(label, [-1]))[0]


def _count_instances(ids: tf.Tensor, divisor: int) -> tf.Tensor:
    return tf.math.count_nonzero(ids % divisor, dtype=tf.int32)


def _kinds(ids: tf.Tensor, descriptor: DatasetDescriptor) -> tf.Tensor:
    """[S] int32, what each id stands for."""
    by_class = np.full(max(descriptor.num_classes, descriptor.ignore_label + 1), _OTHER, np.int32)
    by_class[list(descriptor.stuff_class_ids)] = _STUFF
    by_class[list(descriptor.thing_class_ids)] = _THING
    semantic = ids // descriptor.label_divisor
    listed = (semantic >= 0) & (semantic < len(by_class))
    kinds = tf.where(listed, tf.gather(by_class, tf.clip_by_value(semantic, 0, len(by_class) - 1)), _OTHER)
    return tf.where(ids == descriptor.void_id, _VOID, kinds)
