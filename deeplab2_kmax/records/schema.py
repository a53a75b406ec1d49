"""The fields of a record: an image and its label, under the keys and in the encodings that DeepLab2 writes and reads.

A record is a serialized tf.train.Example. The image stays in its encoded form. A panoptic label holds the bytes of an
int32 array [height, width] of panoptic ids, `class id * label_divisor + instance id`, little-endian and row by row. A
semantic label is a grey PNG of class ids.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Union

import numpy as np
from PIL import Image

from deeplab2_kmax import pictures
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures.opening import JPEG_START, PNG_START, open_whole

if TYPE_CHECKING:
    # Functions that need it import it themselves: who only reads labels, as `deeplab2-kmax score` does, need not wait.
    import tensorflow as tf

IMAGE_ENCODED = "image/encoded"
IMAGE_FILENAME = "image/filename"  # without extension; evaluation names its results by it
IMAGE_FORMAT = "image/format"  # "jpeg", "jpg" or "png"
IMAGE_HEIGHT = "image/height"
IMAGE_WIDTH = "image/width"
IMAGE_CHANNELS = "image/channels"  # always 3
LABEL_ENCODED = "image/segmentation/class/encoded"
LABEL_FORMAT = "image/segmentation/class/format"  # "raw" for panoptic labels, "png" for semantic ones

RAW_LABEL = "raw"
PNG_LABEL = "png"
# A label, or a function of height and width, in pixels, that makes it once these are known.
Label = Union[np.ndarray, bytes, Callable[[int, int], np.ndarray], None]
_IMAGE_FORMATS = ("jpeg", "jpg", "png")
LABEL_DTYPE = np.dtype("<i4")


def feature_spec(with_label: bool = True) -> dict[str, tf.io.FixedLenFeature]:
    """The features of a record, as tf.io.parse_single_example takes them.

    Args:
        with_label: False for records of a split without labels.

    Returns:
        The scalar feature of each key.
    """
    import tensorflow as tf

    text = tf.io.FixedLenFeature((), tf.string)
    number = tf.io.FixedLenFeature((), tf.int64)
    spec = {IMAGE_ENCODED: text, IMAGE_FILENAME: text, IMAGE_FORMAT: text}
    spec.update({IMAGE_HEIGHT: number, IMAGE_WIDTH: number, IMAGE_CHANNELS: number})
    if with_label:
        spec[LABEL_ENCODED] = text
        # DeepLab2's reader does not ask for this key, so records that others wrote for it may lack it.
        spec[LABEL_FORMAT] = tf.io.FixedLenFeature((), tf.string, default_value=RAW_LABEL)
    return spec


def encode_record(image_bytes: bytes, image_format: str | None, filename: str, label: Label) -> bytes:
    """Makes the record of an image and its label.

    The image bytes are stored as they are if they decode to an upright RGB image, otherwise as a PNG of the pixels that
    prediction sees, see `pictures.stored`: readers of records ignore EXIF, and know JPEG and PNG only. Height and width
    are always those of the upright image.

    Args:
        image_bytes: an encoded image.
        image_format: None: "jpeg" or "png", by what is stored. Otherwise what a data set calls its files, "jpeg", "jpg"
            or "png", whose records shall equal DeepLab2's: its grey JPEGs are encoded again, as RGB.
        filename: the name of the image, without folder and extension; evaluation names its results by it.
        label: panoptic ids, an integer array [height, width] (stored as int32); or an encoded PNG of class ids (stored
            as it is); or a function of the height and width of the upright image that makes the array; or None for an
            image without a label.

    Returns:
        A serialized tf.train.Example; equal arguments give equal bytes.

    Raises:
        DataError: the image is truncated, not an image or of a kind that is refused, or the label is not an integer
            array or a PNG of the image's size.
    """
    if image_format not in (None, *_IMAGE_FORMATS):
        raise DataError(f"image {filename!r}: expected a format of {', '.join(_IMAGE_FORMATS)}; got {image_format!r}")
    picture = pictures.stored(image_bytes, f"image {filename!r}")
    encoded, stored_format, height, width = picture[:4]
    if image_format and picture.encoded is image_bytes:
        stored_format = image_format
        if picture.is_grey:
            encoded = _as_deeplab2(image_bytes)
    features = {
        IMAGE_ENCODED: _bytes(encoded),
        IMAGE_FILENAME: _bytes(filename.encode()),
        IMAGE_FORMAT: _bytes(stored_format.encode()),
        IMAGE_HEIGHT: _number(height),
        IMAGE_WIDTH: _number(width),
        IMAGE_CHANNELS: _number(3),
    }
    if callable(label):
        label = label(height, width)
    if label is not None:
        features[LABEL_ENCODED] = _bytes(_label_bytes(label, height, width, filename))
        features[LABEL_FORMAT] = _bytes((PNG_LABEL if isinstance(label, bytes) else RAW_LABEL).encode())
    import tensorflow as tf

    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def readable_format(encoded: bytes) -> str | None:
    """The format of an image that training can read, "jpeg" or "png", by its first bytes; None: training refuses it.

    Args:
        encoded: the image, or at least its first eight bytes.
    """
    if encoded.startswith(JPEG_START):
        return "jpeg"
    return "png" if encoded.startswith(PNG_START) else None


def _as_deeplab2(grey_jpeg: bytes) -> bytes:
    """A grey JPEG as DeepLab2 stores it: as RGB, with Pillow's default quality."""
    encoded = io.BytesIO()
    Image.open(io.BytesIO(grey_jpeg)).convert("RGB").save(encoded, format="jpeg")
    return encoded.getvalue()


def _label_bytes(label: np.ndarray | bytes, height: int, width: int, filename: str) -> bytes:
    if isinstance(label, bytes):
        png = open_whole(label, f"label of image {filename!r}")
        if png.format != "PNG" or (png.height, png.width) != (height, width):
            raise DataError(
                f"image {filename!r}: expected a PNG label of the image's size, {width} x {height} pixels, got a"
                f" {png.format} of {png.width} x {png.height}"
            )
        return label
    if label.ndim != 2 or not np.issubdtype(label.dtype, np.integer):
        raise DataError(
            f"image {filename!r}: expected an integer label [height, width], got {label.dtype} {list(label.shape)}"
        )
    if label.shape != (height, width):
        is_turned = label.shape == (width, height)
        hint = "; one of them is turned, perhaps the image by its EXIF data" if is_turned else ""
        raise DataError(
            f"image {filename!r}: expected a label of the image's size, {width} x {height} pixels, got one of"
            f" {label.shape[1]} x {label.shape[0]}{hint}"
        )
    return label.astype(LABEL_DTYPE).tobytes()


def _bytes(value: bytes) -> tf.train.Feature:
    import tensorflow as tf

    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _number(value: int) -> tf.train.Feature:
    import tensorflow as tf

    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
