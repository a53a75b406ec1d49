"""From a serialized record to pixels: parse, decode, and check that image and label belong together."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax import pictures
from deeplab2_kmax.input_pipeline.checks import require
from deeplab2_kmax.records import schema

# In a PNG file, width and height are the last eight bytes before this one.
_PNG_SIZE_END = 24


class Record(NamedTuple):
    """One decoded record.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        label: [H, W] int32 panoptic ids (`semantic * divisor + instance`), or None.
        name: scalar string, the name of the image file that the record was made from.
        size: [2] int32, (H, W).
    """

    image: tf.Tensor
    label: tf.Tensor | None
    name: tf.Tensor
    size: tf.Tensor


def decode_record(serialized: tf.Tensor, has_labels: bool) -> Record:
    """Decodes one serialized tf.train.Example of the kind that DeepLab2 writes.

    Pixels are taken as they are stored, as in DeepLab2: EXIF orientation is ignored. Our converters store upright
    images, see `schema.encode_record`.

    Args:
        serialized: scalar string.
        has_labels: False ignores labels, whether there are any or not.

    Raises:
        tf.errors.InvalidArgumentError: while iterating: a key is missing, an image is broken or cut short, or sizes
            disagree. `faults.data_errors` turns it into a DataError that names the record.
    """
    parsed = tf.io.parse_single_example(serialized, schema.feature_spec(has_labels))
    size = _checked_size(parsed[schema.IMAGE_HEIGHT], parsed[schema.IMAGE_WIDTH])
    image = _decode_image(parsed[schema.IMAGE_ENCODED], size)
    label = None
    if has_labels:
        label = _decode_label(parsed[schema.LABEL_ENCODED], parsed[schema.LABEL_FORMAT], size)
    return Record(image, label, parsed[schema.IMAGE_FILENAME], size)


def _checked_size(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """[2] int32, (height, width) of a record."""
    size = tf.stack([height, width])
    # Each side is limited by itself too, as the product of two numbers from a broken record may overflow.
    most = pictures.MAX_PIXELS
    within = tf.reduce_all(size >= 1) & tf.reduce_all(size <= most) & (height * width <= most)
    with tf.control_dependencies([require(within, "expected an image of 1 to", most, "pixels, got", size)]):
        return tf.cast(size, tf.int32)


def _decode_image(encoded: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[H, W, 3] uint8. Grey, palette and CMYK images become RGB, 16 bits become 8, transparency is dropped."""
    # The header is compared before anything is decoded, so that a small file cannot fill the memory.
    found = _header_size(encoded)
    same = require(tf.reduce_all(found == size), "image of height, width", found, "but the record says", size)
    with tf.control_dependencies([same]):
        encoded = tf.identity(encoded)
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return image


def _header_size(encoded: tf.Tensor) -> tf.Tensor:
    """[2] int32, (height, width) that the header of a JPEG or PNG announces."""
    # Padded with zeros, because tf.strings.substr and decode_raw fail on files that are shorter than a header.
    head = tf.strings.join(
        [tf.strings.substr(tf.strings.join([encoded, "\0"]), 0, _PNG_SIZE_END), "\0" * _PNG_SIZE_END]
    )
    is_jpeg, is_png = (
        tf.strings.substr(head, 0, len(start)) == start for start in (pictures.JPEG_START, pictures.PNG_START)
    )
    known = require(is_jpeg | is_png, "expected a JPEG or PNG image, got", tf.strings.length(encoded), "other bytes")

    def of_png() -> tf.Tensor:
        # Stored as width, height, in big-endian order.
        numbers = tf.strings.substr(head, _PNG_SIZE_END - 8, 8)
        return tf.io.decode_raw(numbers, tf.int32, little_endian=False)[::-1]

    with tf.control_dependencies([known]):
        return tf.cond(is_jpeg, lambda: tf.io.extract_jpeg_shape(encoded)[:2], of_png)


def _decode_label(encoded: tf.Tensor, label_format: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """[H, W] int32 panoptic ids of a label that is stored as raw int32 numbers."""
    is_raw = require(label_format == schema.RAW_LABEL, "expected a label in format raw, got", label_format)
    expected, got = 4 * tf.reduce_prod(size), tf.strings.length(encoded)
    with tf.control_dependencies([is_raw]):
        fits = require(
            got == expected,
            *("label of another size than the image: an int32 label of height, width", size, "has", expected),
            *("bytes, got", got),
        )
    with tf.control_dependencies([fits]):
        encoded = tf.identity(encoded)
    return tf.reshape(tf.io.decode_raw(encoded, tf.int32), size)
