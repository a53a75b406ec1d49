"""Panoptic copy-paste (kMaX-DeepLab, ECCV 2022, appendix): segments of one training crop are put onto another.

The pasted crop is scaled, cropped and coloured like any other, at a scale of its own. Of its segments a random number
is kept, each as likely as any other; by kind - things, stuff, void - all of them or none may be kept instead.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor

PASTE_CHOICES = ("random", "none", "all")
_PADDING, _VOID, _OTHER, _STUFF, _THING = range(5)
_NOT_PASTED = -1


@dataclasses.dataclass(frozen=True)
class CopyPasteSettings:
    """What of an image is pasted onto another.

    Attributes:
        scale_range: (smallest, largest) factor of the pasted image's random scale.
        thing, stuff, void: "random", "none" or "all" of the segments of this kind. Crowds count as things.
    """

    scale_range: tuple[float, float]
    thing: str = "random"
    stuff: str = "random"
    void: str = "none"


def padding_id(descriptor: DatasetDescriptor) -> int:
    """The id that marks padding in the crop to paste from, to tell it from void; it is never pasted."""
    return descriptor.void_id + 1


def paste(
    image: tf.Tensor,
    label: tf.Tensor,
    source_image: tf.Tensor,
    source_label: tf.Tensor,
    seed: tf.Tensor,
    descriptor: DatasetDescriptor,
    settings: CopyPasteSettings,
    max_thing_id: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts drawn segments of the source onto an image; see `paste_segments`.

    Args:
        image, source_image: [h, w, 3] float32.
        label, source_label: [h, w] int32 panoptic ids, the source's padding marked by `padding_id`.
        seed: [2] int64; equal seeds draw equal segments.
        max_thing_id: the most thing instances an image may hold.

    Returns:
        Image and label.
    """
    ids, index = tf.unique(tf.reshape(source_label, [-1]))
    kept = keep_by_kind(ids, draw_kept(seed, tf.size(ids)), descriptor, settings)
    return paste_segments(image, label, source_image, Segments(ids, index, kept), descriptor, max_thing_id)


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
    source_image: tf.Tensor,
    segments: Segments,
    descriptor: DatasetDescriptor,
    max_thing_id: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts the kept segments onto an image [h, w, 3] float32 and its label [h, w] int32, instances renumbered.

    Where that cannot be - an instance number of half the label divisor or more, or more than `max_thing_id` things in
    the end - the image is returned as it is. DeepLab2 ends the training there.
    """
    source_ids = tf.where(segments.kept, pasted_ids(segments.ids, descriptor), _NOT_PASTED)
    source = tf.reshape(tf.gather(source_ids, segments.index), tf.shape(label))
    merged = tf.where(source == _NOT_PASTED, label, source)
    may_paste = _fits(label, merged, segments, descriptor, max_thing_id)
    is_pasted = (source != _NOT_PASTED) & may_paste
    # Selecting whole pixels is twice as fast as broadcasting the mask over the channels.
    chosen = tf.compat.v1.where(
        tf.reshape(is_pasted, [-1]), tf.reshape(source_image, [-1, 3]), tf.reshape(image, [-1, 3])
    )
    merged_image = tf.ensure_shape(tf.reshape(chosen, tf.shape(image)), image.shape)
    return merged_image, tf.ensure_shape(tf.where(is_pasted, merged, label), label.shape)


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
        ids: [S] int32 distinct panoptic ids, padding as `padding_id`.
        drawn: [S] bool, of `draw_kept`.

    Returns:
        [S] bool, the segments to paste.
    """
    choices = {_PADDING: "none", _VOID: settings.void, _OTHER: "random", _STUFF: settings.stuff, _THING: settings.thing}
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
    kinds = tf.where(ids == descriptor.void_id, _VOID, kinds)
    return tf.where(ids == padding_id(descriptor), _PADDING, kinds)
