"""Opens encoded pictures completely, and says of those that cannot be opened what they are."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

from PIL import Image

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import counted

# The first bytes of a JPEG and of a PNG file.
JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
# The most pixels of a picture that is read: 400 MB as RGB and 0.5 GB as a label, more than cameras take, and more than
# training could use. TensorFlow's own limit for a decoded image is four times as high, Pillow's a third higher.
MAX_PIXELS = 2**27
_EXIF_ORIENTATION = 0x0112
_TURNED = range(2, 9)
# Where a PNG stores the bits of a channel: in its first chunk, which is always the same one.
_PNG_DEPTH_AT = 24
# Kinds of files that people take for pictures we read: (first bytes, where they are, what to call the file).
_FOREIGN = (
    (b"ftyphei", 4, "a HEIC photo; save it as JPEG or PNG"),
    (b"ftypmif1", 4, "a HEIC photo; save it as JPEG or PNG"),
    (b"%PDF", 0, "a PDF document; save its picture as JPEG or PNG"),
    (b"<svg", 0, "an SVG drawing; save it as PNG"),
    (b"<?xml", 0, "an XML file"),
    (b"<!DOCTYPE", 0, "a web page"),
    (b"<html", 0, "a web page"),
    (b"version https://git-lfs", 0, "a pointer of Git LFS (`git lfs pull` fetches the file itself)"),
    (b"\0\5\26\7", 0, "the AppleDouble file that macOS keeps beside a picture"),
    (b"II*\0", 0, "a TIFF of a layout that is not read; save it as RGB with 8 bits"),
    (b"MM\0*", 0, "a TIFF of a layout that is not read; save it as RGB with 8 bits"),
)


@contextlib.contextmanager
def without_pillows_warning() -> Iterator[None]:
    """Hides that Pillow warns of large pictures below its limit; ours, `MAX_PIXELS`, is the one that counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def open_whole(content: bytes, name: str) -> Image.Image:
    """Decodes a picture completely, as it is stored.

    Args:
        content: the bytes of a file of any format that Pillow knows.
        name: what the message of an error begins with, such as the path.

    Returns:
        The first picture of the file, in the mode that Pillow chooses. Pillow turns TIFFs upright by itself.

    Raises:
        DataError: it is not a picture, has more than `MAX_PIXELS` pixels, or is broken.
    """
    if not content:
        raise DataError(f"{name}: expected a picture (JPEG, PNG, ...), got an empty file")
    try:
        with without_pillows_warning(), refusing_broken(content, name):
            picture = Image.open(io.BytesIO(content))
    except Image.UnidentifiedImageError as error:
        if content.startswith((JPEG_START, PNG_START)):
            raise DataError(_broken(content, name)) from error
        raise DataError(f"{name}: expected a picture (JPEG, PNG, ...), got {_kind(content)}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: {_too_large('more')}") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise DataError(f"{name}: {_too_large(f'{picture.width:,} x {picture.height:,}')}")
    with refusing_broken(content, name):
        picture.load()  # `open` only reads the header, and would not notice that data are missing.
    return picture


@contextlib.contextmanager
def refusing_broken(content: bytes, name: str) -> Iterator[None]:
    """Raises DataError where Pillow fails at a picture, which it does by whatever error the damage leads to.

    Args:
        content: the bytes of the file.
        name: what the message begins with, such as the path.
    """
    try:
        yield
    except (DataError, Image.UnidentifiedImageError, Image.DecompressionBombError, MemoryError):
        raise
    except Exception as error:
        raise DataError(_broken(content, name)) from error


def exif_orientation(content: bytes) -> int:
    """What EXIF says of how a picture is stored: 1 upright, 2 to 8 mirrored or turned; 1 where it says nothing."""
    try:
        with without_pillows_warning():
            orientation = _orientation(Image.open(io.BytesIO(content)))
    except Exception:  # See `refusing_broken`.
        return 1  # Whoever decodes the picture says what is wrong with it.
    return orientation if orientation in _TURNED else 1


def is_turned(picture: Image.Image) -> bool:
    """Whether EXIF asks to turn the pixels; Pillow has done so already for TIFFs, and then no longer says it."""
    return _orientation(picture) in _TURNED


def _orientation(picture: Image.Image) -> Any:
    """What EXIF holds as the orientation, which may be anything in a broken file; 1 where it cannot be read."""
    try:
        return picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:
        return 1  # EXIF data that cannot be read ask for nothing; the pixels are whole all the same.


def png_depth(content: bytes) -> int:
    """The bits of a channel, or of an index into the palette: 1, 2, 4, 8 or 16; 0 if this is not a PNG."""
    return content[_PNG_DEPTH_AT] if content.startswith(PNG_START) and len(content) > _PNG_DEPTH_AT else 0


def _kind(content: bytes) -> str:
    """What a file that is no picture is called."""
    for first, place, kind in _FOREIGN:
        if content[place : place + len(first)] == first:
            return kind
    return f"{counted(len(content), 'byte')} of another kind"


def _too_large(size: str) -> str:
    return (
        f"expected a picture of at most {MAX_PIXELS:,} pixels, got {size}; make it smaller, or cut it into tiles and"
        " use each as a picture"
    )


def _broken(content: bytes, name: str) -> str:
    return (
        f"{name}: expected a whole picture, but its data are broken or end too early"
        f" ({counted(len(content), 'byte')}); copy or save it again"
    )
