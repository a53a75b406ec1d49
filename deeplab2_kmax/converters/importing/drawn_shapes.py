"""Shapes of some tools only: ellipses, polygons that hold their outline, and PNGs within a JSON."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from deeplab2_kmax.converters.importing.document import as_bytes
from deeplab2_kmax.converters.importing.regions import check_outline, require_inside
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures.opening import MAX_PIXELS, PNG_START, open_whole


class Ellipse(NamedTuple):
    """The pixels whose centers lie within an ellipse.

    Attributes:
        x, y: its center; (0, 0) is the outer corner of the first pixel.
        radius_x, radius_y: half of its width and height, before it is turned.
        degrees: how far it is turned clockwise.
    """

    x: float
    y: float
    radius_x: float
    radius_y: float
    degrees: float = 0.0

    def mask(self, height: int, width: int, where: str) -> np.ndarray:
        """See `Shape`."""
        require_inside((self.x, self.y), height, width, where)
        longest = math.hypot(height, width)
        for radius in (self.radius_x, self.radius_y):
            if not 0 <= radius <= longest:
                raise DataError(f"{where}: expected a radius from 0 to the picture's diagonal, got {radius:g}")
        if not self.radius_x or not self.radius_y:
            return np.zeros((height, width), bool)
        right = np.arange(width) + 0.5 - self.x
        down = (np.arange(height) + 0.5 - self.y)[:, None]
        cosine, sine = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        along = (right * cosine + down * sine) / self.radius_x
        across = (down * cosine - right * sine) / self.radius_y
        inside: np.ndarray = along**2 + across**2 <= 1
        return inside


class PixelPolygons(NamedTuple):
    """The areas within outlines that run from pixel to pixel, less holes. The pixels of an outline belong to it.

    Attributes:
        parts: of each part, x and y of its pixels in turn, and those of its holes; (0, 0) is the first pixel.
    """

    parts: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]

    def mask(self, height: int, width: int, where: str) -> np.ndarray:
        """See `Shape`."""
        whole = np.zeros((height, width), bool)
        for outline, holes in self.parts:
            part = Image.new("L", (width, height))
            for points, value in ((outline, 1), *((hole, 0) for hole in holes)):
                check_outline(points, height, width, where)
                corners = list(zip(points[::2], points[1::2]))
                ImageDraw.Draw(part).polygon(corners, fill=value)
                # Pillow fills what has its center inside; of the pixels that an outline runs through, that is half.
                ImageDraw.Draw(part).line([*corners, corners[0]], fill=value)
            whole |= np.asarray(part) > 0
        return whole


class PngMask(NamedTuple):
    """A PNG that covers a box of the picture; what is neither 0 nor transparent in it is inside.

    Attributes:
        encoded: the PNG in base64.
        left, top: the first column and row of the box.
        is_compressed: whether the PNG may be compressed by zlib before it is encoded.
        size: (height, width) that the annotations give for the box; None if they do not.
        least: the smallest number, or alpha value, that is inside.
    """

    encoded: str
    left: int
    top: int
    is_compressed: bool = False
    size: tuple[int, int] | None = None
    least: int = 1

    def mask(self, height: int, width: int, where: str) -> np.ndarray:
        """See `Shape`."""
        inside = self._decoded(where)
        rows, columns = inside.shape
        if self.size is not None and tuple(self.size) != (rows, columns):
            raise DataError(
                f"{where}: expected a mask of {self.size[1]} x {self.size[0]} pixels, as the annotations say, got"
                f" {columns} x {rows}"
            )
        if self.left < 0 or self.top < 0 or self.left + columns > width or self.top + rows > height:
            raise DataError(
                f"{where}: expected a mask within the picture, {width} x {height} pixels, got one of {columns} x {rows}"
                f" pixels at x = {self.left}, y = {self.top}"
            )
        whole = np.zeros((height, width), bool)
        whole[self.top : self.top + rows, self.left : self.left + columns] = inside
        return whole

    def _decoded(self, where: str) -> np.ndarray:
        content = as_bytes(self.encoded, where, "a mask")
        if self.is_compressed and not content.startswith(PNG_START):
            content = _decompressed(content, where)
        image = open_whole(content, where)
        if image.format != "PNG" or image.mode not in ("1", "L", "P", "LA", "RGBA", "I", "I;16"):
            raise DataError(
                f"{where}: expected a mask as a PNG in grey, with a palette or with transparency, got {image.format}"
                f" of mode {image.mode}"
            )
        if image.mode in ("LA", "RGBA") or (image.mode == "P" and "transparency" in image.info):
            return np.asarray(image.convert("RGBA"))[..., 3] >= self.least
        return np.asarray(image) >= self.least


def _decompressed(content: bytes, where: str) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        # A mask of the largest picture takes no more. A few bytes could unpack to all memory otherwise.
        unpacked = unpacker.decompress(content, MAX_PIXELS)
    except zlib.error as error:
        raise DataError(f"{where}: expected a mask compressed by zlib, got bytes that are broken") from error
    if not unpacker.eof:
        raise DataError(f"{where}: expected a mask compressed by zlib, got bytes that are cut off or too many")
    return unpacked
