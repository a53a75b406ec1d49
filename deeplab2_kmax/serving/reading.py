"""Reads picture files to the same pixels that training and evaluation see.

Formats that TensorFlow knows are decoded by TensorFlow, as in TFRecords: JPEG decoders differ by a few grey levels.
"""

from __future__ import annotations

import io
import os

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records.schema import EXIF_ORIENTATION
from deeplab2_kmax.wording import first_line

_DECODED_BY_TENSORFLOW = ("JPEG", "PNG", "BMP", "GIF")


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads a picture of any format Pillow knows.

    Greyscale is repeated over the three channels, transparency is dropped, an animation gives its first frame, and a
    photo with an orientation mark of its camera (EXIF) is turned upright.

    Args:
        path: of the file, local or remote.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        DataError: there is no such file, it is not a picture, or it is broken; the message names the file.
    """
    try:
        content = files.read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the file: {error.strerror}") from error
    return decode_image(content, os.fspath(path))


def decode_image(content: bytes, name: str = "image") -> np.ndarray:
    """Decodes the content of a picture file as `read_image` does.

    Args:
        content: of the file.
        name: of the picture, for error messages.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        DataError: this is not a picture, or a broken one.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            orientation = picture.getexif().get(EXIF_ORIENTATION, 1)
            if picture.format in _DECODED_BY_TENSORFLOW:
                pixels = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
            else:
                pixels = np.asarray(picture.convert("RGB"))
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: expected a picture (JPEG, PNG, ...), got a file of another kind") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, tf.errors.InvalidArgumentError) as error:
        raise DataError(f"{name}: the picture is broken: {first_line(error)}") from error
    return pixels if orientation == 1 else _upright(pixels, orientation)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and flips the pixels as the EXIF tag `orientation` (1..8) asks; Pillow knows how."""
    picture = Image.fromarray(pixels)
    picture.getexif()[EXIF_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(picture))
