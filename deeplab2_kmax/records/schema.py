"""The fields of a record: an image and its label, under the keys and in the encodings that DeepLab2 writes and reads.

A record is a serialized tf.train.Example. The image stays in its encoded form. A panoptic label holds the bytes of an
int32 array [height, width] of panoptic ids, `class id * label_divisor + instance id`, little-endian and row by row. A
semantic label is a grey PNG of class ids.
"""

from __future__ import annotations

import io

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import counted

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
_IMAGE_FORMATS = ("jpeg", "jpg", "png")
LABEL_DTYPE = np.dtype("<i4")
# The first bytes of a JPEG and of a PNG file. Training reads images of these formats only, whatever the record names.
JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
# The most pixels of an image that training reads: 400 MB as RGB and 0.5 GB as a label, more than cameras take, and more
# than training could use. TensorFlow's own limit for a decoded image is four times as high.
MAX_PIXELS = 2**27
# The EXIF tag that says how a camera was held, and its value for images that need no turning.
EXIF_ORIENTATION = 0x0112
_UPRIGHT = 1


def feature_spec(with_label: bool = True) -> dict[str, tf.io.FixedLenFeature]:
    """The features of a record, as tf.io.parse_single_example takes them.

    Args:
        with_label: False for records of a split without labels.

    Returns:
        The scalar feature of each key.
    """
    text = tf.io.FixedLenFeature((), tf.string)
    number = tf.io.FixedLenFeature((), tf.int64)
    spec = {IMAGE_ENCODED: text, IMAGE_FILENAME: text, IMAGE_FORMAT: text}
    spec.update({IMAGE_HEIGHT: number, IMAGE_WIDTH: number, IMAGE_CHANNELS: number})
    if with_label:
        spec[LABEL_ENCODED] = text
        # DeepLab2's reader does not ask for this key, so records that others wrote for it may lack it.
        spec[LABEL_FORMAT] = tf.io.FixedLenFeature((), tf.string, default_value=RAW_LABEL)
    return spec


def encode_record(image_bytes: bytes, image_format: str, filename: str, label: np.ndarray | bytes | None) -> bytes:
    """Makes the record of an image and its label.

    The image bytes are stored as they are if they decode to an upright RGB image. Grey, palette, CMYK and transparent
    images are encoded again, as RGB. So are images that their EXIF orientation turns, because readers of records ignore
    EXIF; height and width are always those of the upright image.

    Args:
        image_bytes: an encoded image.
        image_format: how it is encoded: "jpeg", "jpg" or "png".
        filename: the name of the image, without folder and extension; evaluation names its results by it.
        label: panoptic ids, an integer array [height, width] (stored as int32); or an encoded PNG of class ids (stored
            as it is); or None for an image without a label.

    Returns:
        A serialized tf.train.Example; equal arguments give equal bytes.

    Raises:
        DataError: the image is truncated or not an image, or the label is not an integer array or a PNG of the image's
            size.
    """
    if image_format not in _IMAGE_FORMATS:
        raise DataError(f"image {filename!r}: expected a format of {', '.join(_IMAGE_FORMATS)}; got {image_format!r}")
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


def readable_format(encoded: bytes) -> str | None:
    """The format of an image that training can read, "jpeg" or "png", by its first bytes; None: training refuses it.

    Args:
        encoded: the image, or at least its first eight bytes.
    """
    if encoded.startswith(JPEG_START):
        return "jpeg"
    return "png" if encoded.startswith(PNG_START) else None


def open_image(image_bytes: bytes, name: str) -> Image.Image:
    """Decodes an image completely, as it is stored: its EXIF orientation is not applied.

    Args:
        image_bytes: an encoded image of any format that Pillow knows.
        name: what the message of an error begins with, such as the path.

    Raises:
        DataError: it is not an image, or its data end too early.
    """
    try:
        image = Image.open(io.BytesIO(image_bytes))
        image.load()  # `open` only reads the header, and would not notice that data are missing.
    # Pillow reports broken PNG chunks as SyntaxError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise DataError(f"{name}: expected a whole image, got {counted(len(image_bytes), 'byte')}: {reason}") from error
    return image


def _upright_rgb(image_bytes: bytes, image_format: str, filename: str) -> tuple[bytes, int, int]:
    """The image as upright RGB: (encoded image, height, width)."""
    image = open_image(image_bytes, f"image {filename!r}")
    is_turned = image.getexif().get(EXIF_ORIENTATION, _UPRIGHT) != _UPRIGHT
    if is_turned:
        image = ImageOps.exif_transpose(image)
    if image.mode != "RGB":
        # With Pillow's default quality, as in DeepLab2, so that a grey JPEG becomes the same bytes.
        image = image.convert("RGB")
        image_bytes = _encode(image, image_format)
    elif is_turned:
        # DeepLab2 does not turn images, so nothing asks for the default quality, which costs more detail.
        image_bytes = _encode(image, image_format, quality=95)
    return image_bytes, image.height, image.width


def _encode(image: Image.Image, image_format: str, **options: int) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, format="jpeg" if image_format == "jpg" else image_format, **options)
    return encoded.getvalue()


def _label_bytes(label: np.ndarray | bytes, height: int, width: int, filename: str) -> bytes:
    if isinstance(label, bytes):
        png = open_image(label, f"label of image {filename!r}")
        if png.format != "PNG" or (png.height, png.width) != (height, width):
            raise DataError(
                f"image {filename!r}: expected a PNG label of the image's size [{height}, {width}], "
                f"got {png.format} [{png.height}, {png.width}]"
            )
        return label
    if label.shape != (height, width) or not np.issubdtype(label.dtype, np.integer):
        raise DataError(
            f"image {filename!r}: expected an integer label of the image's size [{height}, {width}], "
            f"got {label.dtype} {list(label.shape)}"
        )
    return label.astype(LABEL_DTYPE).tobytes()


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _number(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
