"""The TFRecord schema of labelled images: the keys and encodings DeepLab2 writes and reads.

A record is a tf.train.Example. The image is kept in its encoded form. A panoptic label map is the bytes of an int32
array [height, width] of panoptic ids, `semantic * label_divisor + instance`, little-endian and row by row; a semantic
one is a grey PNG of class ids.
"""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from deeplab2_kmax.errors import DataError

IMAGE_ENCODED = "image/encoded"
IMAGE_FILENAME = "image/filename"  # without extension
IMAGE_FORMAT = "image/format"  # "jpeg" or "png"
IMAGE_HEIGHT = "image/height"
IMAGE_WIDTH = "image/width"
IMAGE_CHANNELS = "image/channels"  # always 3
LABEL_ENCODED = "image/segmentation/class/encoded"
LABEL_FORMAT = "image/segmentation/class/format"  # "raw" for panoptic labels, "png" for semantic ones

RAW_LABEL = "raw"
PNG_LABEL = "png"
_IMAGE_FORMATS = ("jpeg", "jpg", "png")
LABEL_DTYPE = np.dtype("<i4")
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = 1


def feature_spec(with_label: bool = True) -> dict[str, tf.io.FixedLenFeature]:
    """What tf.io.parse_single_example needs to read a record.

    Args:
        with_label: False for records of a split without labels.
    """
    text = tf.io.FixedLenFeature((), tf.string)
    number = tf.io.FixedLenFeature((), tf.int64)
    spec = {IMAGE_ENCODED: text, IMAGE_FILENAME: text, IMAGE_FORMAT: text}
    spec.update({IMAGE_HEIGHT: number, IMAGE_WIDTH: number, IMAGE_CHANNELS: number})
    if with_label:
        spec[LABEL_ENCODED] = text
        # DeepLab2's reader does without this key, so records of other writers may lack it.
        spec[LABEL_FORMAT] = tf.io.FixedLenFeature((), tf.string, default_value=RAW_LABEL)
    return spec


def encode_record(image_bytes: bytes, image_format: str, filename: str, label: np.ndarray | bytes | None) -> bytes:
    """One serialized tf.train.Example.

    The image bytes are kept as they are if they decode to an upright RGB image. Grey, palette, CMYK and transparent
    images are encoded anew as RGB. So are images whose EXIF orientation says they lie on their side, because readers
    of records do not look at EXIF: height and width are always those of the upright image.

    Args:
        image_bytes: an encoded image.
        image_format: how it is encoded: "jpeg", "jpg" or "png".
        filename: the name of the image, without folder and extension; evaluation names its results by it.
        label: integer panoptic ids [height, width] (stored as int32), or an encoded PNG of class ids (kept as it is),
            or None for an image without labels.

    Raises:
        DataError: the image is truncated or no image, or the label is not an integer map or PNG of the image's size.
    """
    if image_format not in _IMAGE_FORMATS:
        raise DataError(f"image {filename!r}: expected a format of {', '.join(_IMAGE_FORMATS)}; came {image_format!r}")
    image_bytes, height, width = _upright_rgb(image_bytes, image_format, filename)
    features = {
        IMAGE_ENCODED: _bytes(image_bytes),
        IMAGE_FILENAME: _bytes(filename.encode()),
        IMAGE_FORMAT: _bytes(image_format.encode()),
        IMAGE_HEIGHT: _number(height),
        IMAGE_WIDTH: _number(width),
        IMAGE_CHANNELS: _number(3),
    }
    if label is not None:
        features[LABEL_ENCODED] = _bytes(_label_bytes(label, height, width, filename))
        features[LABEL_FORMAT] = _bytes((PNG_LABEL if isinstance(label, bytes) else RAW_LABEL).encode())
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def open_image(image_bytes: bytes, name: str) -> Image.Image:
    """Decodes an image to its last pixel, as stored (no EXIF rotation).

    Raises:
        DataError: it is no image, or its data end too early; the message begins with `name`.
    """
    try:
        image = Image.open(io.BytesIO(image_bytes))
        image.load()
    # Pillow reports broken PNG chunks as SyntaxError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise DataError(f"{name}: expected a whole image, came {len(image_bytes)} bytes: {reason}") from error
    return image


def _upright_rgb(image_bytes: bytes, image_format: str, filename: str) -> tuple[bytes, int, int]:
    """(image bytes, height, width) of the upright RGB image."""
    image = open_image(image_bytes, f"image {filename!r}")
    lies_on_its_side = image.getexif().get(_EXIF_ORIENTATION, _UPRIGHT) != _UPRIGHT
    if lies_on_its_side:
        image = ImageOps.exif_transpose(image)
    if image.mode != "RGB":
        # Pillow's default quality, as DeepLab2: a grey JPEG becomes the same bytes here and there.
        image = image.convert("RGB")
        image_bytes = _encode(image, image_format)
    elif lies_on_its_side:
        image_bytes = _encode(image, image_format, quality=95)
    return image_bytes, image.height, image.width


def _encode(image: Image.Image, image_format: str, **options) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, format="jpeg" if image_format == "jpg" else image_format, **options)
    return encoded.getvalue()


def _label_bytes(label: np.ndarray | bytes, height: int, width: int, filename: str) -> bytes:
    if isinstance(label, bytes):
        png = open_image(label, f"label of image {filename!r}")
        if png.format != "PNG" or (png.height, png.width) != (height, width):
            raise DataError(
                f"image {filename!r}: expected a PNG label of the image's size [{height}, {width}], "
                f"came {png.format} [{png.height}, {png.width}]"
            )
        return label
    if label.shape != (height, width) or not np.issubdtype(label.dtype, np.integer):
        raise DataError(
            f"image {filename!r}: expected an integer label of the image's size [{height}, {width}], "
            f"came {label.dtype} {list(label.shape)}"
        )
    return label.astype(LABEL_DTYPE).tobytes()


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _number(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
