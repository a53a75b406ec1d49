"""Panoptic copy-paste (kMaX-DeepLab, ECCV 2022, appendix): segments of one training crop are put onto another.

The pasted crop is scaled, cropped and coloured like any other, at a scale of its own. Of its segments a random number
is kept, each as likely as any other; by kind - things, stuff, void - all of them or none may be kept instead.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.input_pipeline.augmentation import Crop
from deeplab2_kmax.input_pipeline.settings import CopyPasteSettings
from deeplab2_kmax.input_pipeline.targets import DistinctIds, list_ids

_OTHER, _VOID, _STUFF, _THING = range(4)


def paste(
    image: tf.Tensor,
    label: tf.Tensor,
    source: Crop,
    seed: tf.Tensor,
    descriptor: DatasetDescriptor,
    settings: CopyPasteSettings,
    max_thing_id: int,
) -> tuple[tf.Tensor, tf.Tensor, DistinctIds]:
    """Puts drawn segments of another image onto one; see `paste_segments`.

    Args:
        image: [h, w, 3] float32, of known shape.
        label: [h, w] int32 panoptic ids.
        source: what the other image shows in a crop of the same size.
        seed: [2] int64; equal seeds draw equal segments.
        max_thing_id: the most thing instances an image may hold.

    Returns:
        Image, label, and the distinct ids of the label.
    """
    source_ids = list_ids(source.label)
    count = tf.size(source_ids.ids)
    # The padding of the source counts as a segment, too, though it is never pasted.
    is_padded = tf.cast(tf.size(source.label) < tf.size(label), tf.int32)
    drawn = draw_kept(seed, count + is_padded)[:count]
    kept = keep_by_kind(source_ids.ids, drawn, descriptor, settings)
    return paste_segments(image, label, source, source_ids, kept, descriptor, max_thing_id)


def paste_segments(
    image: tf.Tensor,
    label: tf.Tensor,
    source: Crop,
    source_ids: DistinctIds,
    kept: tf.Tensor,
    descriptor: DatasetDescriptor,
    max_thing_id: int,
) -> tuple[tf.Tensor, tf.Tensor, DistinctIds]:
    """Puts the `kept` [S] bool of the source's segments onto an image and its label, instances renumbered; see `paste`.

    Where that cannot be - a pasted instance would get the number of one that is there, or there would be more than
    `max_thing_id` things - the image is returned as it is. DeepLab2 ends the training there, and whenever it meets an
    instance number of half the label divisor or more.
    """
    # From here on only the pixels that are pasted are worked on: their places in the source and in the crop.
    pixels = tf.cast(tf.where(tf.gather(kept, source_ids.index))[:, 0], tf.int32)
    source_width, width = tf.shape(source.label)[1], tf.shape(label)[1]
    rows, columns = pixels // source_width + source.place[0], pixels % source_width + source.place[1]
    places = (rows * width + columns)[:, tf.newaxis]
    ids = pasted_ids(source_ids.ids, descriptor)
    id_of_pixels = tf.gather(ids, tf.gather(source_ids.index, pixels))
    merged = tf.reshape(tf.tensor_scatter_nd_update(tf.reshape(label, [-1]), places, id_of_pixels), label.shape)
    merged_ids = list_ids(merged)
    instances = kept & (source_ids.ids % descriptor.label_divisor != 0)
    fits = _stay_apart(merged_ids, ids[instances], source_ids.areas[instances], descriptor)
    fits &= _are_few(merged_ids, descriptor, max_thing_id)
    count = tf.where(fits, tf.size(pixels), 0)
    colours = tf.gather(tf.reshape(source.image, [-1, 3]), pixels[:count])
    merged_image = tf.tensor_scatter_nd_update(tf.reshape(image, [-1, 3]), places[:count], colours)
    # Seldom otherwise, so the ids of the unchanged label are listed only then.
    label, *distinct = tf.cond(fits, lambda: (merged, *merged_ids), lambda: (label, *list_ids(label)))
    return tf.reshape(merged_image, image.shape), label, DistinctIds(*distinct)


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


def _stay_apart(merged: DistinctIds, new_ids: tf.Tensor, areas: tf.Tensor, descriptor: DatasetDescriptor) -> tf.Tensor:
    """Scalar bool: pasted instances have as many pixels in the merged label as were pasted, and are instances still."""
    is_new = tf.reduce_any(merged.ids[:, tf.newaxis] == new_ids, 1) & (merged.ids % descriptor.label_divisor != 0)
    return tf.reduce_sum(tf.where(is_new, merged.areas, 0)) == tf.reduce_sum(areas)


def _are_few(merged: DistinctIds, descriptor: DatasetDescriptor, max_thing_id: int) -> tf.Tensor:
    return tf.math.count_nonzero(merged.ids % descriptor.label_divisor, dtype=tf.int32) <= max_thing_id


def _kinds(ids: tf.Tensor, descriptor: DatasetDescriptor) -> tf.Tensor:
    """[S] int32, what each id stands for."""
    by_class = np.full(max(descriptor.num_classes, descriptor.ignore_label + 1), _OTHER, np.int32)
    by_class[list(descriptor.stuff_class_ids)] = _STUFF
    by_class[list(descriptor.thing_class_ids)] = _THING
    semantic = ids // descriptor.label_divisor
    listed = (semantic >= 0) & (semantic < len(by_class))
    kinds = tf.where(listed, tf.gather(by_class, tf.clip_by_value(semantic, 0, len(by_class) - 1)), _OTHER)
    return tf.where(ids == descriptor.void_id, _VOID, kinds)
