"""Classes and ids of slots, and the tables that turn "which slot owns which pixel" into maps.

Decisions are taken for slots, [B, N], or pairs of slots, of which there are few; a map is then one table look-up for
each pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.postprocessing.settings import PostprocessingSettings


class SlotClasses(NamedTuple):
    """The classes of B images' N slots.

    Attributes:
        index: int32 [B, N], index of the most probable class other than void, in the order of the class head:
            things first, then stuff.
        confidence: float32 [B, N], the probability of that class, 0..1.
        class_id: int32 [B, N], its class id in the data set.
        is_thing: bool [B, N], whether it is a thing class.
    """

    index: tf.Tensor
    confidence: tf.Tensor
    class_id: tf.Tensor
    is_thing: tf.Tensor


def classify_slots(class_logits: tf.Tensor, settings: PostprocessingSettings) -> SlotClasses:
    """The most probable class of each slot other than void, from class logits float32 [B, N, C + 1]."""
    # Void takes part in the softmax: a slot that is probably void has a low confidence.
    probabilities = tf.nn.softmax(class_logits, axis=-1)[..., :-1]
    index = tf.argmax(probabilities, -1, output_type=tf.int32)
    return SlotClasses(
        index=index,
        confidence=tf.reduce_max(probabilities, -1),
        class_id=tf.gather(tf.constant(settings.index_to_class_id, tf.int32), index),
        is_thing=index < settings.num_thing_classes,
    )


def panoptic_id_of_slots(
    classes: SlotClasses, areas: tf.Tensor, instance_ids: tf.Tensor, settings: PostprocessingSettings
) -> tf.Tensor:
    """The panoptic id that the pixels of each slot get; segments below the area limits become void.

    All slots of a stuff class together are one segment; each slot of a thing class is a segment of its own.

    Args:
        classes: the class of each slot.
        areas: float32 [B, N], pixels that each slot owns.
        instance_ids: int32 [B, N], the instance id of each slot, from 1; used for things only.
        settings: label encoding and area limits.

    Returns:
        int32 [B, N + 1]; the last entry, void, is for pixels that no slot owns.
    """
    same_class = classes.index[:, :, tf.newaxis] == classes.index[:, tf.newaxis, :]
    # The area of each slot's whole class: the sum over the slots of the same class.
    class_areas = tf.linalg.matvec(tf.cast(same_class, tf.float32), areas)
    large_enough = tf.where(
        classes.is_thing, areas >= settings.thing_area_limit, class_areas >= settings.stuff_area_limit
    )
    ids = classes.class_id * settings.label_divisor + tf.where(classes.is_thing, instance_ids, 0)
    void_id = settings.ignore_label * settings.label_divisor
    return with_entry_for_none(tf.where(large_enough, ids, void_id), void_id)


def with_entry_for_none(table: tf.Tensor, value: int | float) -> tf.Tensor:
    """Adds an entry `value` for pixels that no slot owns to a table [B, N]; returns [B, N + 1]."""
    return tf.pad(table, [[0, 0], [0, 1]], constant_values=value)


def look_up(table: tf.Tensor, entries: tf.Tensor) -> tf.Tensor:
    """The values of tables [B, K], one for each image, at entries int32 [B, ...]; returns [B, ...]."""
    return tf.gather(table, entries, batch_dims=1)


def look_up_together(tables: dict[str, tf.Tensor], entries: tf.Tensor, portable: bool = False) -> dict[str, tf.Tensor]:
    """`look_up` in several tables at once, for the cost of one.

    Args:
        tables: int32 or float32 [B, K] each.
        entries: int32 [B, H, W].
        portable: see `PostprocessingSettings`; other runtimes cannot take the bits of floats for integers.

    Returns:
        Maps [B, H, W] by the names of the tables.
    """
    if portable:
        return {name: look_up(table, entries) for name, table in tables.items()}
    # Most of the time goes into fetching from random places. Side by side, the values of an entry are fetched together;
    # floats travel as integers of the same bits.
    columns = [tf.bitcast(table, tf.int32) for table in tables.values()]
    rows = tf.gather(tf.stack(columns, -1), entries, batch_dims=1)
    values = zip(tables.items(), tf.unstack(rows, axis=-1))
    return {name: tf.bitcast(column, table.dtype) for (name, table), column in values}


def count_by_image(entries: tf.Tensor, size: int, portable: bool = False) -> tf.Tensor:
    """How often each value from 0 to size - 1 occurs in each image.

    Args:
        entries: int32 [B, ...].
        size: number of values.
        portable: see `PostprocessingSettings`.

    Returns:
        float32 [B, size]; exact for images of up to 2**24 pixels.
    """
    if portable:
        return _portable_sums(tf.ones(tf.shape(entries)), entries, size)
    flat = tf.reshape(entries, [tf.shape(entries)[0], -1])
    # On the host also beside a GPU, whose kernel TensorFlow refuses under `trainer_options.deterministic_ops`. A sum by
    # segments has a kernel there, but takes twenty times as long on CPUs.
    with tf.device("CPU:0"):
        counts = tf.math.bincount(flat, minlength=size, maxlength=size, axis=-1)
    return tf.cast(tf.ensure_shape(counts, [None, size]), tf.float32)


def _portable_sums(values: tf.Tensor, entries: tf.Tensor, size: int) -> tf.Tensor:
    """`sum_by_image` for runtimes that cannot count, and of which some take seconds to sum by that many segments."""
    batch = tf.shape(entries)[0]
    none = tf.zeros([size * batch])
    sums = tf.tensor_scatter_nd_add(none, tf.reshape(_places(entries, size), [-1, 1]), tf.reshape(values, [-1]))
    return tf.reshape(sums, [batch, size])


def sum_by_image(values: tf.Tensor, entries: tf.Tensor, size: int, portable: bool = False) -> tf.Tensor:
    """The sum of the values at each entry from 0 to size - 1, image by image.

    Args:
        values: float32 [B, ...].
        entries: int32, of the same shape.
        size: number of entries.
        portable: see `PostprocessingSettings`.

    Returns:
        float32 [B, size].
    """
    if portable:
        return _portable_sums(values, entries, size)
    batch = tf.shape(entries)[0]
    places = tf.reshape(_places(entries, size), [-1])
    return tf.reshape(tf.math.unsorted_segment_sum(tf.reshape(values, [-1]), places, size * batch), [batch, size])


def _places(entries: tf.Tensor, size: int) -> tf.Tensor:
    """Numbers entries consecutively over the batch, so that one sum serves all images; returns int32 [B, M]."""
    batch = tf.shape(entries)[0]
    return tf.reshape(entries, [batch, -1]) + size * tf.range(batch)[:, tf.newaxis]
