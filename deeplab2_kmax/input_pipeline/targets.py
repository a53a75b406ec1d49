"""Training targets from a panoptic label.

A label has few segments and many pixels. So everything is computed for the segments first and spread over the pixels by
one look-up, instead of passing over all pixels once for each segment.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.input_pipeline.checks import require

# What a class id stands for; see `kinds_of_ids`.
UNKNOWN, STUFF, THING, VOID = range(4)


class DistinctIds(NamedTuple):
    """The distinct panoptic ids of a label map; the attributes are those of `Segments`."""

    ids: tf.Tensor
    index: tf.Tensor
    areas: tf.Tensor


class Segments(NamedTuple):
    """The distinct panoptic ids of a label map, in the order of their first pixels, row by row.

    Attributes:
        ids: [S] int32 panoptic ids.
        index: [P] int32, the segment of each pixel of the flattened map.
        areas: [S] int32, how many pixels each has.
        semantic: [S] int32 class ids.
        is_crowd: [S] bool, whether it is a group of things that are not told apart.
        is_instance: [S] bool, whether it is a single thing.
    """

    ids: tf.Tensor
    index: tf.Tensor
    areas: tf.Tensor
    semantic: tf.Tensor
    is_crowd: tf.Tensor
    is_instance: tf.Tensor


def list_ids(label: tf.Tensor) -> DistinctIds:
    """The distinct ids of a label [H, W] int32; they are not checked."""
    return DistinctIds(*tf.unique_with_counts(tf.reshape(label, [-1])))


def find_segments(label: tf.Tensor, descriptor: DatasetDescriptor, distinct: DistinctIds | None = None) -> Segments:
    """Lists the segments of a panoptic label and checks their ids.

    Args:
        label: [H, W] int32 panoptic ids.
        descriptor: the classes that they refer to.
        distinct: `list_ids(label)`, if it is known already.

    Returns:
        The S segments, in the order of their first pixels.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs: a class is not listed, or stuff has an instance number.
    """
    ids, index, areas = distinct or list_ids(label)
    semantic = ids // descriptor.label_divisor
    kind = kinds_of_ids(ids, descriptor)
    has_instance = ids % descriptor.label_divisor != 0
    unknown = kind == UNKNOWN
    stuff_instance = (kind == STUFF) & has_instance
    checks = [
        require(
            ~tf.reduce_any(unknown),
            *("label id", ids[tf.argmax(unknown)], "has class", semantic[tf.argmax(unknown)]),
            f"which is not in the class list of {descriptor.name} (ids {_ranges(descriptor)},"
            f" ignore {descriptor.ignore_label}; label = class * {descriptor.label_divisor} + instance)",
        ),
        require(
            ~tf.reduce_any(stuff_instance),
            *("label id", ids[tf.argmax(stuff_instance)], "gives an instance number to class"),
            *(semantic[tf.argmax(stuff_instance)], f"of {descriptor.name}, which is stuff and has instance 0 only"),
        ),
    ]
    with tf.control_dependencies(checks):
        kind = tf.identity(kind)
    is_thing = kind == THING
    return Segments(ids, index, areas, semantic, is_thing & ~has_instance, is_thing & has_instance)


def semantic_and_crowd(label: tf.Tensor, descriptor: DatasetDescriptor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits a panoptic label [H, W] int32 into class ids [H, W] int32 and a crowd mask [H, W] bool.

    Crowd pixels keep their class.
    """
    return _semantic_and_crowd(label, find_segments(label, descriptor), descriptor)


def make_targets(
    label: tf.Tensor,
    descriptor: DatasetDescriptor,
    max_thing_id: int,
    small_instance_area: int = 0,
    small_instance_weight: float = 1.0,
    distinct: DistinctIds | None = None,
) -> dict[str, tf.Tensor]:
    """Everything that the losses compare predictions with, under DeepLab2's names.

    Args:
        label: [H, W] int32 panoptic ids, crowds included.
        descriptor: the classes that they refer to.
        max_thing_id: the most thing instances allowed.
        small_instance_area: an instance with fewer pixels counts as small; 0: none does.
        small_instance_weight: weight of the pixels of small instances; all others weigh 1.
        distinct: `list_ids(label)`, if it is known already.

    Returns:
        `semantic_gt` [H, W] int32 class ids; `panoptic_gt` [H, W] int32, the label itself; `is_crowd_gt` [H, W] bool;
        `semantic_loss_weight` [H, W] float32; `thing_id_mask_gt` [H, W] int32, instances numbered from 0 in the order
        of their first pixels, -1 elsewhere; `thing_id_class_gt` [max_thing_id] int32, their class ids, then -1.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs: too many things, or ids that `find_segments` refuses.
    """
    segments = find_segments(label, descriptor, distinct)
    thing_classes = segments.semantic[segments.is_instance]
    count = tf.size(thing_classes)
    few_enough = require(count <= max_thing_id, count, "thing instances, more than max_thing_id", max_thing_id)
    # With too many, the padding below would be negative and fail less clearly.
    with tf.control_dependencies([few_enough]):
        padding = tf.maximum(max_thing_id - count, 0)
    order = tf.cumsum(tf.cast(segments.is_instance, tf.int32), exclusive=True)
    weights = tf.ones_like(label, tf.float32)
    if small_instance_area and small_instance_weight != 1:
        is_small = segments.is_instance & (segments.areas < small_instance_area)
        weights = _to_pixels(tf.where(is_small, small_instance_weight, 1.0), segments, label)
    semantic, is_crowd = _semantic_and_crowd(label, segments, descriptor)
    return {
        "semantic_gt": semantic,
        "panoptic_gt": label,
        "is_crowd_gt": is_crowd,
        "semantic_loss_weight": weights,
        "thing_id_mask_gt": _to_pixels(tf.where(segments.is_instance, order, -1), segments, label),
        "thing_id_class_gt": tf.ensure_shape(tf.pad(thing_classes, [[0, padding]], constant_values=-1), [max_thing_id]),
    }


def _semantic_and_crowd(
    label: tf.Tensor, segments: Segments, descriptor: DatasetDescriptor
) -> tuple[tf.Tensor, tf.Tensor]:
    # Dividing each pixel is several times faster than looking it up, and most images have no crowd.
    semantic = _divided(label, descriptor.label_divisor)
    is_crowd = tf.cond(
        tf.reduce_any(segments.is_crowd),
        lambda: _to_pixels(segments.is_crowd, segments, label),
        lambda: tf.zeros_like(label, tf.bool),
    )
    return semantic, tf.ensure_shape(is_crowd, label.shape)


def _divided(values: tf.Tensor, divisor: int) -> tf.Tensor:
    """values // divisor for int32 values of 0 or more."""
    # TensorFlow's floor division treats negative values too and is slower; a shift is the fastest.
    exponent = divisor.bit_length() - 1
    return tf.bitwise.right_shift(values, exponent) if divisor == 2**exponent else tf.truncatediv(values, divisor)


def _to_pixels(values: tf.Tensor, segments: Segments, label: tf.Tensor) -> tf.Tensor:
    """A value for each segment, spread over its pixels in the shape of the label."""
    pixels = tf.reshape(tf.gather(values, segments.index), tf.shape(label))
    return tf.ensure_shape(pixels, label.shape)


def kinds_of_ids(ids: tf.Tensor, descriptor: DatasetDescriptor) -> tf.Tensor:
    """What the classes of panoptic ids [S] int32 stand for: [S] int32 of UNKNOWN, STUFF, THING or VOID."""
    by_class = np.full(max(descriptor.num_classes, descriptor.ignore_label + 1), UNKNOWN, np.int32)
    by_class[list(descriptor.stuff_class_ids)] = STUFF
    by_class[list(descriptor.thing_class_ids)] = THING
    by_class[descriptor.ignore_label] = VOID
    semantic = ids // descriptor.label_divisor
    in_table = (semantic >= 0) & (semantic < len(by_class))
    # tf.gather on CPUs fails for an index outside of the table, even where tf.where drops its value.
    return tf.where(in_table, tf.gather(by_class, tf.clip_by_value(semantic, 0, len(by_class) - 1)), UNKNOWN)


def _ranges(descriptor: DatasetDescriptor) -> str:
    """The class ids as text, with runs written as "1..133"."""
    ids = sorted(c.id for c in descriptor.classes)
    runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
