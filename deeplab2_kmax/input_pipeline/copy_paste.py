"""Panoptic copy-paste (kMaX-DeepLab, ECCV 2022, appendix): segments of one training crop are pasted onto another.

The source of the segments is scaled, cropped and colored like any other image, but within a range of scales of its own.
A random number of its segments is kept, each segment being as likely as any other. For each kind of segments (things,
stuff, void), settings may ask for all of them or none of them instead.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.input_pipeline.augmentation import Crop
from deeplab2_kmax.input_pipeline.settings import CopyPasteSettings
from deeplab2_kmax.input_pipeline.targets import STUFF, THING, UNKNOWN, VOID, DistinctIds, kinds_of_ids, list_ids


def paste(
    image: tf.Tensor,
    label: tf.Tensor,
    source: Crop,
    seed: tf.Tensor,
    descriptor: DatasetDescriptor,
    settings: CopyPasteSettings,
    max_thing_id: int,
) -> tuple[tf.Tensor, tf.Tensor, DistinctIds]:
    """Draws segments of another image and pastes them; see `paste_segments`.

    Args:
        image: [h, w, 3] float32, of known shape.
        label: [h, w] int32 panoptic ids.
        source: the part of the other image that a crop of the same size shows.
        seed: [2] int64; equal seeds draw equal segments.
        descriptor: classes and label encoding.
        settings: which kinds of segments are pasted.
        max_thing_id: the most thing instances an image may hold.

    Returns:
        Image, label, and the distinct ids of the label.
    """
    source_ids = list_ids(source.label)
    count = tf.size(source_ids.ids)
    # As in DeepLab2, the padding of the source counts as a segment in the draw, though it is never pasted.
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
    """Pastes segments onto an image and its label; their instances get new numbers.

    The image is returned as it is if a pasted instance would get the number of one that is there, or if there would be
    more than `max_thing_id` things. In these cases, and whenever it meets an instance number of half the label divisor
    or more, DeepLab2 ends the training.

    Args:
        image: see `paste`; likewise `label`, `source`, `descriptor`, `max_thing_id` and the result.
        source_ids: the distinct ids of the source, S of them.
        kept: [S] bool, the segments to paste.
    """
    # Indices of the pasted pixels in the flattened source. From here on only these pixels are worked on.
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
    colors = tf.gather(tf.reshape(source.image, [-1, 3]), pixels[:count])
    merged_image = tf.tensor_scatter_nd_update(tf.reshape(image, [-1, 3]), places[:count], colors)
    # Pasting nearly always fits, so the ids of the unchanged label are listed only when it does not.
    label, *distinct = tf.cond(fits, lambda: (merged, *merged_ids), lambda: (label, *list_ids(label)))
    return tf.reshape(merged_image, image.shape), label, DistinctIds(*distinct)


def draw_kept(seed: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Draws how many of `count` segments are kept, from none to all, and which.

    Args:
        seed: [2] int64.
        count: scalar int32.

    Returns:
        [count] bool.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    number = tf.random.stateless_uniform([], seeds[0], 0, count + 1, tf.int32)
    # Each segment's rank in a random order; those of the lowest ranks are kept.
    ranks = tf.argsort(tf.argsort(tf.random.stateless_uniform([count], seeds[1])))
    return ranks < number


def keep_by_kind(
    ids: tf.Tensor, drawn: tf.Tensor, descriptor: DatasetDescriptor, settings: CopyPasteSettings
) -> tf.Tensor:
    """Overrules the draw for the kinds of which all or none are wanted.

    Args:
        ids: [S] int32 distinct panoptic ids.
        drawn: [S] bool, from `draw_kept`.
        descriptor: classes and label encoding.
        settings: what is wanted of each kind.

    Returns:
        [S] bool, the segments to paste.
    """
    choices = {UNKNOWN: "random", VOID: settings.void, STUFF: settings.stuff, THING: settings.thing}
    kinds = kinds_of_ids(ids, descriptor)
    # To DeepLab2, a void id with an instance number is of no kind.
    kinds = tf.where((kinds == VOID) & (ids != descriptor.void_id), UNKNOWN, kinds)
    always = tf.gather([choices[kind] == "all" for kind in sorted(choices)], kinds)
    maybe = tf.gather([choices[kind] != "none" for kind in sorted(choices)], kinds)
    return (drawn | always) & maybe


def pasted_ids(ids: tf.Tensor, descriptor: DatasetDescriptor) -> tf.Tensor:
    """Ids [S] int32 with instances numbered from divisor - 2 downwards, away from those of the other image."""
    divisor = descriptor.label_divisor
    instance = ids % divisor
    return tf.where(instance == 0, ids, ids - instance + (divisor - 1 - instance))


def _stay_apart(merged: DistinctIds, new_ids: tf.Tensor, areas: tf.Tensor, descriptor: DatasetDescriptor) -> tf.Tensor:
    """Whether pasted instances are apart from all others, scalar bool.

    They are if their new ids have as many pixels in the merged label as were pasted, and are still those of instances.

    Args:
        merged: the distinct ids of the merged label.
        new_ids: [P] int32, the new ids of the pasted instances.
        areas: [P] int32, their pixels.
        descriptor: has the label divisor.
    """
    is_new = tf.reduce_any(merged.ids[:, tf.newaxis] == new_ids, 1) & (merged.ids % descriptor.label_divisor != 0)
    return tf.reduce_sum(tf.where(is_new, merged.areas, 0)) == tf.reduce_sum(areas)


def _are_few(merged: DistinctIds, descriptor: DatasetDescriptor, max_thing_id: int) -> tf.Tensor:
    """Whether the merged label has no more instances than allowed, scalar bool."""
    return tf.math.count_nonzero(merged.ids % descriptor.label_divisor, dtype=tf.int32) <= max_thing_id
