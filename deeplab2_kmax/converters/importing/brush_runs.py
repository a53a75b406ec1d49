"""Label Studio's run lengths of brush masks: those of the package rle-pack, over the bytes of an RGBA picture.

A stream of bits, the highest of each byte first: 32 bits for the number of values (4 for each pixel, row by row), 5 for
the bits of a value less one, and 4 times 4 for four widths less one. Then blocks follow: a bit that says whether all
values of the block are equal, 2 that choose a width, as many bits as that for the number of values less one, and one
value or all of them. Zeros fill the last byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deeplab2_kmax.converters.importing.document import quoted
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import counted

_CHANNELS = 4
_VALUE_BITS = 8
# The widths of Label Studio's own encoder.
_WIDTHS = (3, 4, 8, 16)
# Some encoders add a byte of zeros where none is needed.
_MOST_FILLING = 15
_INSIDE = 255


class BrushRuns(NamedTuple):
    """A brush mask: the pixels that are not wholly transparent.

    Attributes:
        stream: its bytes as characters 0..255; as numbers, those of all pictures would take much memory.
    """

    stream: str

    def mask(self, height: int, width: int, where: str) -> np.ndarray:
        """See `Shape`."""
        return decoded_brush(self.stream.encode("latin-1"), height, width, where)


def brush_runs(rle: Sequence[Any], where: str) -> BrushRuns:
    """The runs in a list of a JSON file; raises DataError if it is not one of whole numbers from 0 to 255."""
    # Told by types first, as these lists are long, and true would pass for 1.
    if set(map(type, rle)) <= {int} and min(rle, default=0) >= 0 and max(rle, default=0) < 256:
        return BrushRuns(bytes(rle).decode("latin-1"))
    place, value = next((p, v) for p, v in enumerate(rle) if type(v) is not int or not 0 <= v < 256)
    raise DataError(f"{where}: expected whole numbers from 0 to 255, got {quoted(value)} at place {place}")


def decoded_brush(content: bytes, height: int, width: int, where: str) -> np.ndarray:
    """Reads a brush mask.

    Args:
        content: the stream.
        height, width: of the picture.
        where: what the message of an error begins with.

    Returns:
        bool [height, width].

    Raises:
        DataError: the stream is cut off or broken, or of a picture of another size.
    """
    stream = _Stream(np.frombuffer(content, np.uint8), where)
    count = stream.number(32)
    if count != height * width * _CHANNELS:
        raise DataError(
            f"{where}: expected run lengths of {width} x {height} pixels,"
            f" {counted(height * width * _CHANNELS, 'value')}, got them of {count:,}"
        )
    value_bits = stream.number(5) + 1
    if value_bits != _VALUE_BITS:
        raise DataError(f"{where}: expected run lengths of values of {_VALUE_BITS} bits, got {value_bits}")
    widths = [stream.number(4) + 1 for _ in range(4)]
    values = np.empty(count, np.uint8)
    done = 0
    while done < count:
        is_run = stream.number(1)
        end = done + stream.number(widths[stream.number(2)]) + 1
        if end > count:
            raise DataError(f"{where}: expected run lengths that add up to {counted(count, 'value')}, got more")
        values[done:end] = stream.bytes(1 if is_run else end - done)
        done = end
    stream.require_end()
    return values[_CHANNELS - 1 :: _CHANNELS].reshape(height, width) > 0


def encoded_brush(mask: np.ndarray) -> list[int]:
    """Writes a brush mask.

    Args:
        mask: bool [height, width].

    Returns:
        The bytes of the stream, as numbers 0..255.
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.append(starts, flat.size)) * _CHANNELS
    head = format(flat.size * _CHANNELS, "032b") + format(_VALUE_BITS - 1, "05b")
    pieces = [head, *(format(width - 1, "04b") for width in _WIDTHS)]
    for start, length in zip(starts.tolist(), lengths.tolist()):
        value = format(_INSIDE if flat[start] else 0, "08b")
        while length:
            part = min(length, 1 << _WIDTHS[-1])
            choice = next(place for place, width in enumerate(_WIDTHS) if part <= 1 << width)
            pieces.append(f"1{choice:02b}{format(part - 1, f'0{_WIDTHS[choice]}b')}{value}")
            length -= part
    bits = np.frombuffer("".join(pieces).encode(), np.uint8) - ord("0")
    encoded: list[int] = np.packbits(bits).tolist()
    return encoded


class _Stream:
    """Bits that are read from the first to the last."""

    def __init__(self, content: np.ndarray, where: str) -> None:
        self._bits = np.unpackbits(content)
        self._text = (self._bits + ord("0")).tobytes().decode("ascii")  # Much faster to take small numbers from.
        self._at = 0
        self._where = where

    def number(self, bits: int) -> int:
        return int(self._text[self._next(bits)], 2)

    def bytes(self, count: int) -> np.ndarray:
        """uint8 [count]"""
        return np.packbits(self._bits[self._next(count * _VALUE_BITS)])

    def require_end(self) -> None:
        rest = self._text[self._at :]
        if len(rest) > _MOST_FILLING or "1" in rest:
            raise DataError(f"{self._where}: expected run lengths that end with the last pixel, got more of them")

    def _next(self, bits: int) -> slice:
        taken = slice(self._at, self._at + bits)
        if taken.stop > len(self._text):
            raise DataError(f"{self._where}: expected run lengths up to the last pixel, got a list that is cut off")
        self._at = taken.stop
        return taken
