"""Random scale, crop and flip for training, each pixel interpolated once.

DeepLab2 resizes the whole image, rescales it, pads it, cuts the crop out and flips it, five passes over up to several
times the pixels needed. Here the same crop is described first (`draw_window`) and then read from the decoded image in
one interpolation. Sizes, offsets and probabilities are DeepLab2's.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.input_pipeline.resizing import PADDING_GREY, fitted_size
from deeplab2_kmax.input_pipeline.settings import PipelineSettings


class Window(NamedTuple):
    """Where a crop lies in the scaled image.

    Attributes:
        scaled_size: [2] int32, (height, width) of the whole image after scaling.
        origin: [2] int32, the crop's upper left corner in it, in scaled pixels; negative: rows or columns of padding.
        flip: scalar bool, mirrored left to right.
    """

    scaled_size: tf.Tensor
    origin: tf.Tensor
    flip: tf.Tensor


def draw_window(seed: tf.Tensor, size: tf.Tensor, settings: PipelineSettings) -> Window:
    """Draws scale, position and flip.

    An image smaller than the crop is put at a random place in it, a larger one cropped at a random place.

    Args:
        seed: [2] int64; equal seeds draw equal windows.
        size: [2] int32, (height, width) of the decoded image.
        settings: crop size, bounds of the first resize, and range and step of the random scale.
    """
    draws = tf.random.stateless_uniform([4], seed)
    scale = _scale_factor(draws[0], settings.scale_range, settings.scale_step)
    fitted = fitted_size(size, settings.min_size, settings.max_size, settings.resize_factor)
    scaled = tf.maximum(tf.cast(tf.cast(fitted, tf.float32) * scale, tf.int32), 1)
    margin = scaled - tf.constant(settings.crop_size)
    # A larger image has margin + 1 places for the crop; DeepLab2 lets a smaller one start at -margin places only.
    places = tf.where(margin < 0, -margin, margin + 1)
    offset = tf.cast(draws[1:3] * tf.cast(places, tf.float32), tf.int32)
    return Window(scaled, tf.where(margin < 0, -offset, offset), draws[3] <= 0.5)


def crop_image(image: tf.Tensor, window: Window, crop_size: tuple[int, int]) -> tf.Tensor:
    """The window of an image [H, W, 3] uint8: [h, w, 3] float32 0..255, bilinear, padded with `PADDING_GREY`."""
    begin, inner, before, after = _visible(window, crop_size)
    last = tf.maximum(tf.cast(window.scaled_size - 1, tf.float32), 1)
    corners = tf.concat([tf.cast(begin, tf.float32) / last, tf.cast(begin + inner - 1, tf.float32) / last], 0)
    # Rounding must not carry the outermost samples out of the image, where the operation has no pixels to read.
    corners = tf.clip_by_value(corners, 1e-6, 1 - 1e-6)
    corners = tf.where(window.flip, tf.gather(corners, [0, 3, 2, 1]), corners)
    pixels = tf.image.crop_and_resize(image[tf.newaxis], corners[tf.newaxis], [0], inner)[0]
    paddings = tf.concat([tf.stack([before, after], 1), [[0, 0]]], 0)
    return tf.ensure_shape(tf.pad(pixels, paddings, constant_values=PADDING_GREY), [*crop_size, 3])


def crop_label(label: tf.Tensor, window: Window, crop_size: tuple[int, int], void_id: int) -> tf.Tensor:
    """The window of a label [H, W] int32: [h, w] int32, nearest pixel, padded with `void_id`."""
    begin, inner, before, after = _visible(window, crop_size)
    size = tf.shape(label)
    rows = _nearest(begin[0], inner[0], size[0], window.scaled_size[0])
    columns = _nearest(begin[1], inner[1], size[1], window.scaled_size[1])
    columns = tf.where(window.flip, columns[::-1], columns)
    pixels = tf.gather(tf.gather(label, rows), columns, axis=1)
    return tf.ensure_shape(tf.pad(pixels, tf.stack([before, after], 1), constant_values=void_id), crop_size)


def _scale_factor(draw: tf.Tensor, scale_range: tuple[float, float], step: float) -> tf.Tensor:
    """A factor from the range for a draw in [0, 1)."""
    smallest, largest = scale_range
    if not step or smallest == largest:
        return smallest + draw * (largest - smallest)
    # As in DeepLab2 the number of factors is truncated and their distance stretched to reach both ends of the range:
    # 0.5 to 2.0 by 0.1, read from a config as float32, makes 15 factors rather than 16.
    count = int((largest - smallest) / step + 1)
    return tf.gather(tf.linspace(tf.constant(smallest), largest, count), tf.cast(draw * count, tf.int32))


def _visible(window: Window, crop_size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The part of the window that shows image: its begin and size in scaled pixels, and padding before and after it.

    Each is [2] int32 for height and width. The padding is that of the crop as it comes out, i.e. after the flip.
    """
    begin = tf.maximum(window.origin, 0)
    end = tf.minimum(window.origin + tf.constant(crop_size), window.scaled_size)
    before = begin - window.origin
    after = tf.constant(crop_size) - (end - begin) - before
    swap = tf.stack([False, window.flip])
    return begin, end - begin, tf.where(swap, after, before), tf.where(swap, before, after)


def _nearest(begin: tf.Tensor, count: tf.Tensor, size: tf.Tensor, scaled: tf.Tensor) -> tf.Tensor:
    """Indices [count] of the source pixels nearest to scaled pixels begin, begin + 1, ..."""
    ratio = tf.cast(size - 1, tf.float32) / tf.maximum(tf.cast(scaled - 1, tf.float32), 1)
    positions = tf.cast(tf.range(begin, begin + count), tf.float32) * ratio
    return tf.minimum(tf.cast(positions + 0.5, tf.int32), size - 1)
