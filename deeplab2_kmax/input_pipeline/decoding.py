"""From a serialized record to pixels: parse, decode, and check that image and label belong together."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.input_pipeline import schema
from deeplab2_kmax.input_pipeline.checks import require


class Record(NamedTuple):
    """One decoded record.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        label: [H, W] int32 panoptic ids (`semantic * divisor + instance`), or None.
        name: scalar string, the file name the image had.
        size: [2] int32, (H, W).
    """

    image: tf.Tensor
    label: tf.Tensor | None
    name: tf.Tensor
    size: tf.Tensor


def decode_record(serialized: tf.Tensor, has_labels: bool) -> Record:
    """Decodes one serialized tf.train.Example as DeepLab2 writes them.

    Args:
        serialized: scalar string.
        has_labels: False leaves labels unread, whether there are any or not.

    Raises:
        tf.errors.InvalidArgumentError: while iterating: a missing key, an image that is broken or cut short, sizes
            that disagree. `faults.data_errors` turns it into a DataError that names the record.
    """
    parsed = tf.io.parse_single_example(serialized, schema.feature_spec(has_labels))
    size = tf.cast(tf.stack([parsed[schema.IMAGE_HEIGHT], parsed[schema.IMAGE_WIDTH]]), tf.int32)
    image = _decode_image(parsed[schema.IMAGE_ENCODED], size)
    label = None
    if has_labels:
        label = _decode_label(parsed[schema.LABEL_ENCODED], parsed[schema.LABEL_FORMAT], size)
    return Record(image, label, parsed[schema.IMAGE_FILENAME], size)


def _decode_image(encoded: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    came = tf.shape(image)[:2]
    same = require(tf.reduce_all(came == size), "image of height, width", came, "but the record says", size)
    with tf.control_dependencies([same]):
        return tf.identity(image)


def _decode_label(encoded: tf.Tensor, label_format: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    is_raw = require(label_format == schema.RAW_LABEL, "expected a label in format raw, got", label_format)
    expected, came = 4 * tf.reduce_prod(size), tf.strings.length(encoded)
    with tf.control_dependencies([is_raw]):
        fits = require(
            came == expected,
            *("label of another size than the image: an int32 label of height, width", size, "has", expected),
            *("bytes, got", came),
        )
    with tf.control_dependencies([fits]):
        encoded = tf.identity(encoded)
    return tf.reshape(tf.io.decode_raw(encoded, tf.int32), size)
