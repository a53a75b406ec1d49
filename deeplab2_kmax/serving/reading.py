"""Pictures from files, decoded by TensorFlow as TFRecords are, so that a file and its record give the same pixels."""

from __future__ import annotations

import io
import os

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from deeplab2_kmax.errors import DataError

_DECODED_BY_TENSORFLOW = ("JPEG", "PNG", "BMP", "GIF")
_EXIF_ORIENTATION = 0x0112


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads a picture of any format Pillow knows.

    Greyscale is repeated over the three channels, transparency is dropped, of an animation the first frame is taken,
    and a photo that its camera marked as turned (EXIF) is turned upright.

    Returns:
      [H, W, 3] uint8 RGB.

    Raises:
      DataError: no such file, not a picture, or a broken one; the message names the file.
    """
    try:
        with tf.io.gfile.GFile(os.fspath(path), "rb") as file:
            content = file.read()
    except tf.errors.OpError as error:
        raise DataError(f"{path}: cannot read the file: {error.message}") from error
    return decode_image(content, os.fspath(path))


def decode_image(content: bytes, name: str = "image") -> np.ndarray:
    """Decodes the content of a picture file; see `read_image`. `name` stands in error messages."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
            if picture.format in _DECODED_BY_TENSORFLOW:
                pixels = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
            else:
                pixels = np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: expected a picture (JPEG, PNG, ...), the file is none") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, tf.errors.InvalidArgumentError) as error:
        raise DataError(f"{name}: the picture is broken: {_first_line(error)}") from error
    return pixels if orientation == 1 else _upright(pixels, orientation)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    picture = Image.fromarray(pixels)
    picture.getexif()[_EXIF_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(picture))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
