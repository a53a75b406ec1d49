"""Bringing pictures to the network's input size and maps back, in NumPy, for where there is no TensorFlow.

The same sizes and pixels as `input_pipeline.resizing` and `postprocessing.undo_resize`, up to rounding: corners are
aligned, so that output i reads input i * (in - 1) / (out - 1).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

# As `input_pipeline.resizing.PADDING_GREY`, which cannot be imported without TensorFlow; a test holds them together.
PADDING_GREY = 127.5

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class InputRule:
    """How pictures are resized and padded to the network's input size; fields as in `inference.InputSettings`."""

    crop_size: Size
    min_size: Size | None = None
    max_size: Size | None = None
    resize_factor: int = 0

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> InputRule:
        """Takes what `export.json` says of the input; raises KeyError or TypeError where that is not there."""
        sizes = {name: facts[name] and tuple(facts[name]) for name in ("crop_size", "min_size", "max_size")}
        return cls(**sizes, resize_factor=facts["resize_factor"])

    def prepare(self, images: np.ndarray) -> tuple[np.ndarray, Size]:
        """Resizes and pads pictures of one size.

        Args:
            images: [B, H, W, 3] uint8.

        Returns:
            The network's input [B, h, w, 3] float32, 0..255, and the size of the pictures in its upper left corner.
        """
        longest = self.max_size or self.crop_size
        height, width = fitted_size(images.shape[1:3], self.min_size, longest, self.resize_factor)
        prepared = np.full((len(images), *self.crop_size, 3), PADDING_GREY, np.float32)
        prepared[:, :height, :width] = resize_bilinear(images, (height, width))
        return prepared, (height, width)


def fitted_size(size: tuple[int, ...], min_size: Size | None, max_size: Size | None, factor: int | None) -> Size:
    """`input_pipeline.resizing.fitted_size` for numbers, with the same rounding: in float32, and down."""
    if min_size:
        size = _scaled(size, max(_ratios(min_size, size)))
    if max_size:
        if factor:
            max_size = max_size[0] - (max_size[0] - 1) % factor, max_size[1] - (max_size[1] - 1) % factor
        size = _scaled(size, min(*_ratios(max_size, size), np.float32(1)))
    height, width = (length + (1 - length) % factor if factor else length for length in size)
    return height, width


def resize_bilinear(images: np.ndarray, size: Size) -> np.ndarray:
    """Resizes [B, H, W, C] of any numeric dtype to [B, h, w, C] float32."""
    for axis, length in zip((1, 2), size):
        position = _positions(images.shape[axis], length)
        before = np.floor(position).astype(np.int64)
        after = np.minimum(before + 1, images.shape[axis] - 1)
        share = (position - before.astype(np.float32)).reshape(-1, *[1] * (3 - axis))
        first = images.take(before, axis).astype(np.float32)
        second = images.take(after, axis).astype(np.float32)
        second -= first
        second *= share
        first += second
        images = first
    return images


def undo_resize(values: np.ndarray, resized_size: Size, raw_size: Size) -> np.ndarray:
    """Cuts the padding off maps [B, h, w] and brings them to the size of the pictures, by the nearest pixel."""
    rows, columns = (_nearest(length, raw) for length, raw in zip(resized_size, raw_size))
    return values[:, rows[:, None], columns]


def _positions(length: int, new: int) -> np.ndarray:
    """Where in a side of `length` pixels each of `new` pixels lies, float32, as TensorFlow computes it."""
    scale = np.float32(length - 1) / np.float32(new - 1) if new > 1 else np.float32(length)
    return np.arange(new, dtype=np.float32) * scale


def _nearest(length: int, new: int) -> np.ndarray:
    position = _positions(length, new)
    below = np.floor(position)
    # Halves are rounded up; adding one half first would round the sum.
    nearest = (below + (position - below >= 0.5)).astype(np.int64)
    return np.minimum(nearest, length - 1)


def _ratios(bound: Size, size: tuple[int, ...]) -> list[np.float32]:
    return [np.float32(limit / length) for limit, length in zip(bound, size)]


def _scaled(size: tuple[int, ...], ratio: np.float32) -> Size:
    height, width = (max(int(np.floor(np.float32(length) * ratio)), 1) for length in size)
    return height, width
