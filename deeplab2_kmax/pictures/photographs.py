"""Which pixels a picture file stands for: 8-bit RGB, upright, by one rule for training and prediction.

- Grey is repeated over the three channels; palettes are looked up; transparency is dropped, so that the color below it
  shows; CMYK is turned into RGB without color profiles.
- Of 16 bits, the upper 8 are kept, as TensorFlow does. If that leaves at most 16 levels, because the picture uses a
  small part of the range (12-bit sensors, 8-bit values in a 16-bit file), it is refused.
- Whole numbers of 32 bits and floats are refused, because the file does not say which value is white; so is LAB.
- EXIF orientation is applied.
- An animation gives its first frame, and a photo with previews the photo. A TIFF with pages of equal size is refused.
"""

from __future__ import annotations

import io
import os
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures.opening import JPEG_START, PNG_START, is_turned, open_whole, png_depth, refusing_broken
from deeplab2_kmax.wording import counted

# The modes of Pillow whose conversion to RGB follows the rule.
_PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_TIFF_BITS, _TIFF_PHOTOMETRIC, _ZERO_IS_WHITE = 258, 262, 0
_LARGEST = 2**16 - 1
_FULL_DEPTH = 16
_TOO_FEW_LEVELS = 16


class StoredPicture(NamedTuple):
    """A picture in the form that records hold: TensorFlow decodes it to the pixels of `decode_image`.

    Attributes:
        encoded: a JPEG or PNG.
        format: which of the two, "jpeg" or "png".
        height, width: of the upright picture.
        is_grey: whether it has one channel.
    """

    encoded: bytes
    format: str
    height: int
    width: int
    is_grey: bool


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads a picture file of any format that Pillow knows, by the rule above.

    Args:
        path: of the file, local or remote.

    Returns:
        [H, W, 3] uint8 RGB.

    Raises:
        DataError: there is no such file, it is not a picture, it is broken or too large, or its kind of pixels is
            refused; the message names the file.
    """
    try:
        if kind := files.special_kind(path):
            raise DataError(f"{path}: expected a picture file, got {kind}; save the picture to a file")
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
        DataError: as for `read_image`.
    """
    picture = open_whole(content, name)
    if not _is_jpeg_of_tensorflow(picture, content):
        return _rgb(picture, content, name)
    try:
        import tensorflow as tf  # Late, as some exports of models run where it is not installed.
    except ImportError:
        return _rgb(picture, content, name)
    try:
        # As training decodes it: JPEG decoders differ by a few grey levels.
        pixels: np.ndarray = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
    except tf.errors.OpError as error:
        raise DataError(f"{name}: expected a whole picture, but the data of this JPEG are broken") from error
    return pixels


def stored(content: bytes, name: str) -> StoredPicture:
    """The picture as records hold it.

    The bytes of the file are kept if TensorFlow decodes them to the pixels of `decode_image`, which it does for
    upright JPEGs in grey or RGB and for upright PNGs in RGB. Otherwise the pixels are stored as a PNG.

    Args:
        content: of a picture file.
        name: of the picture, for error messages.

    Raises:
        DataError: as for `read_image`.
    """
    picture = open_whole(content, name)
    if _is_jpeg_of_tensorflow(picture, content):
        return StoredPicture(content, "jpeg", picture.height, picture.width, picture.mode == "L")
    pixels = _rgb(picture, content, name)
    is_kept = content.startswith(PNG_START) and picture.mode == "RGB" and not is_turned(picture)
    if not is_kept:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="png")
        content = stream.getvalue()
    height, width = pixels.shape[:2]
    return StoredPicture(content, "png", height, width, picture.mode == "L")


def _is_jpeg_of_tensorflow(picture: Image.Image, content: bytes) -> bool:
    """Whether this is a JPEG that TensorFlow decodes by the rule; it neither turns pictures, nor knows all of CMYK."""
    return content.startswith(JPEG_START) and picture.mode in ("L", "RGB") and not is_turned(picture)


def _rgb(picture: Image.Image, content: bytes, name: str) -> np.ndarray:
    """The pixels of an opened picture by the rule: [H, W, 3] uint8."""
    _refuse_pages(picture, content, name)
    if is_turned(picture):
        with refusing_broken(content, name):
            picture = _turned(picture)
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        values = np.asarray(picture).astype(np.int32)
        if picture.format == "TIFF" and _tiff_tag(picture, _TIFF_PHOTOMETRIC) == _ZERO_IS_WHITE:
            values = _LARGEST - values  # Pillow does this for 8 bits, but not for 16.
        grey = (values >> 8).astype(np.uint8)
        _require_levels(grey, name)
        return np.repeat(grey[..., None], 3, axis=-1)
    if picture.mode not in _PLAIN_MODES:
        raise DataError(f"{name}: expected a picture of 8 or 16 bits a channel, got {_kind_of_pixels(picture)}")
    pixels = np.asarray(picture.convert("RGB"))
    if png_depth(content) == _FULL_DEPTH or _tiff_tag(picture, _TIFF_BITS) == _FULL_DEPTH:
        _require_levels(pixels, name)  # Of colors with 16 bits, Pillow passes on the upper 8.
    return pixels


def _turned(picture: Image.Image) -> Image.Image:
    """The upright picture. Its format stays known, which Pillow forgets."""
    upright = ImageOps.exif_transpose(picture)
    upright.format = picture.format
    return upright


def _tiff_tag(picture: Image.Image, tag: int) -> int | None:
    """The value of a tag, the largest of several; None if the picture has no such tag."""
    value = getattr(picture, "tag_v2", {}).get(tag)
    return max(value) if isinstance(value, tuple) else value


def _require_levels(upper: np.ndarray, name: str) -> None:
    """Refuses pictures of which the upper 8 of 16 bits leave next to nothing."""
    levels = int(upper.max()) + 1
    if levels <= _TOO_FEW_LEVELS:
        raise DataError(
            f"{name}: expected a 16-bit picture that uses the range 0 to {_LARGEST}, of which the upper 8 bits are"
            f" kept; got values below {levels * 256}, of which only {counted(levels, 'level')} would be left. Scale all"
            " pictures by one factor to the whole range, or save them with 8 bits"
        )


def _kind_of_pixels(picture: Image.Image) -> str:
    """What is wrong with pixels that are refused, and what to do."""
    kinds = {
        "I": "whole numbers of 32 bits, or with a sign",
        "F": "floats",
        "LAB": "LAB colors; save it as RGB",
    }
    kind = kinds.get(picture.mode, f"pixels of the kind {picture.mode!r}; save it as RGB")
    if picture.mode in ("I", "F"):
        kind += ", and the file does not say which value is white; scale all pictures alike and save them with 8 bits"
    return kind


def _refuse_pages(picture: Image.Image, content: bytes, name: str) -> None:
    """Refuses a TIFF with several pages of one size; smaller ones are previews."""
    if picture.format != "TIFF":
        return
    with refusing_broken(content, name), Image.open(io.BytesIO(content)) as pages:
        sizes = [page.size for page in ImageSequence.Iterator(pages)]
    if sizes.count(sizes[0]) > 1:
        raise DataError(
            f"{name}: expected a file with one picture, got a TIFF of {counted(sizes.count(sizes[0]), 'page')} of the"
            " same size; save each page as a file of its own"
        )
