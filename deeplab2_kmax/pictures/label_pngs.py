"""PNGs whose pixels are numbers: those of classes and instances, or segment ids as colors.

A number must come out as it was written. Pillow scales grey of 1, 2 and 4 bits to 0..255, as for photographs, and keeps
only the upper 8 bits of colors with 16. EXIF orientation is applied, as it is to the pictures: where a program has
copied it from a picture to its label, only one of the two would be turned otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures.opening import is_turned, open_whole, png_depth

_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "I;16L")
_FULL_GREY = 255


def decode_numbers(content: bytes, name: str) -> np.ndarray:
    """Decodes a PNG with one number a pixel: grey of 1 to 16 bits, or a palette, of which the index is meant.

    Args:
        content: of the file.
        name: what messages begin with, such as the path.

    Returns:
        int32 [height, width], 0..65535.

    Raises:
        DataError: it is not a whole PNG, or holds colors.
    """
    image = open_whole(content, name)
    if image.format != "PNG" or image.mode not in ("P", *_GREY_MODES):
        raise DataError(
            f"{name}: expected a PNG with one number a pixel (grey of up to 16 bits, or palette), got"
            f" {_description(image)}{_advice(image)}"
        )
    numbers = np.asarray(_upright(image)).astype(np.int32)
    depth = png_depth(content)
    if image.mode == "L" and depth < 8:
        # Pillow has scaled the largest number of so many bits to 255.
        numbers //= _FULL_GREY // (2**depth - 1)
    return numbers


def decode_colors(content: bytes, name: str) -> np.ndarray:
    """Decodes a PNG whose colors are numbers, as COCO's panoptic format stores segment ids; transparency is dropped.

    Args:
        content: of the file.
        name: what messages begin with, such as the path.

    Returns:
        uint8 RGB [height, width, 3].

    Raises:
        DataError: it is not a whole PNG of RGB colors with 8 bits a channel.
    """
    image = open_whole(content, name)
    if image.format != "PNG" or image.mode not in ("RGB", "RGBA") or png_depth(content) != 8:
        depth = f" with {png_depth(content)} bits a channel" if image.format == "PNG" else ""
        raise DataError(
            f"{name}: expected an RGB PNG of segment ids with 8 bits a channel, got {_description(image)}{depth}"
        )
    return np.asarray(_upright(image).convert("RGB"))


class MaskPng(NamedTuple):
    """A PNG of which numbers or colors stand for classes or instances.

    Attributes:
        numbers: int32 [height, width], grey values, indices into the palette, or colors as 256^2 R + 256 G + B.
        palette: the color of each index, in the same form; None for other PNGs.
        has_colors: whether the numbers are colors.
    """

    numbers: np.ndarray
    palette: tuple[int, ...] | None
    has_colors: bool


def decode_mask(content: bytes, name: str) -> MaskPng:
    """Decodes a PNG of grey values, of indices into a palette, or of RGB colors; transparency is dropped.

    Args:
        content: of the file.
        name: what messages begin with, such as the path.

    Raises:
        DataError: it is not a whole PNG of one of these kinds.
    """
    image = open_whole(content, name)
    if image.mode in ("RGB", "RGBA"):
        return MaskPng(_packed(decode_colors(content, name)), None, has_colors=True)
    numbers = decode_numbers(content, name)
    if image.mode != "P":
        return MaskPng(numbers, None, has_colors=False)
    colors = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return MaskPng(numbers, tuple(_packed(colors).tolist()), has_colors=False)


def _packed(colors: np.ndarray) -> np.ndarray:
    return colors.astype(np.int32) @ np.array([256**2, 256, 1], np.int32)


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if is_turned(image) else image


def _advice(image: Image.Image) -> str:
    """How to go on with colors, which may be greys that were saved as RGB, or stand for classes."""
    if image.mode not in ("RGB", "RGBA", "LA"):
        return ""
    if image.mode == "LA" or all(np.ptp(np.asarray(image)[..., :3], axis=-1).ravel() == 0):
        return "; all its pixels are grey: save it as grey with 8 bits, without transparency"
    return "; where colors stand for classes, `deeplab2-kmax convert voc` reads them with a label map"


def _description(image: Image.Image) -> str:
    return f"{image.format} of mode {image.mode}"
