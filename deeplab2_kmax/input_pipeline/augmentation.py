"""Random scale, crop and flip for training: drawn first (`draw_window`), then carried out (`cut_crop`, `pad_crop`).

Sizes, offsets, probabilities and interpolation are DeepLab2's, so that equal draws give equal pixels: the image is
resized to its bounds, then by the random factor. Everything after that is done for the pixels of the crop only. Labels
are never resized: for each pixel of the crop, its id is looked up in the decoded label.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.input_pipeline.autoaugment import Policy, apply_chain
from deeplab2_kmax.input_pipeline.resizing import PADDING_GREY, fitted_size, resize_align_corners
from deeplab2_kmax.input_pipeline.settings import PipelineSettings


class Window(NamedTuple):
    """Where a crop lies in the scaled image.

    Attributes:
        fitted_size: [2] int32, (height, width) of the whole image after the first resize, to its bounds.
        scaled_size: [2] int32, the same after the random scale.
        origin: [2] int32, the crop's upper left corner in it, in scaled pixels; negative: rows or columns of padding.
        flip: scalar bool, whether the crop is mirrored left to right.
    """

    fitted_size: tf.Tensor
    scaled_size: tf.Tensor
    origin: tf.Tensor
    flip: tf.Tensor


class Crop(NamedTuple):
    """The part of an image that a window shows, without padding.

    Attributes:
        image: [h', w', 3] float32 0..255.
        label: [h', w'] int32 panoptic ids.
        place: [2] int32, row and column in the padded crop where its upper left pixel goes.
    """

    image: tf.Tensor
    label: tf.Tensor
    place: tf.Tensor


def draw_window(
    seed: tf.Tensor, size: tf.Tensor, scale_range: tuple[float, float], settings: PipelineSettings
) -> Window:
    """Draws scale, position and flip.

    An image smaller than the crop is put at a random place in it; a larger one is cropped at a random place.

    Args:
        seed: [2] int64; equal seeds draw equal windows.
        size: [2] int32, (height, width) of the decoded image.
        scale_range: (smallest, largest) factor of the random scale.
        settings: crop size, bounds of the first resize, and step of the random scale.

    Returns:
        Where the crop lies, for `cut_crop`.
    """
    draws = tf.random.stateless_uniform([4], seed)
    scale = _scale_factor(draws[0], scale_range, settings.scale_step)
    fitted = fitted_size(size, settings.min_size, settings.max_size, settings.resize_factor)
    scaled = tf.maximum(tf.cast(tf.cast(fitted, tf.float32) * scale, tf.int32), 1)
    margin = scaled - tf.constant(settings.crop_size)
    # A crop has margin + 1 places in a larger image. A smaller image would have 1 - margin places in the crop, of which
    # DeepLab2 never draws the last.
    places = tf.where(margin < 0, -margin, margin + 1)
    offset = tf.cast(draws[1:3] * tf.cast(places, tf.float32), tf.int32)
    return Window(fitted, scaled, tf.where(margin < 0, -offset, offset), draws[3] <= 0.5)


def cut_crop(
    image: tf.Tensor,
    label: tf.Tensor,
    window: Window,
    crop_size: tuple[int, int],
    policy: Policy | None = None,
    chain: tf.Tensor | None = None,
) -> Crop:
    """Cuts out the part of an image and its label that the window shows.

    Args:
        image: [H, W, 3] uint8; resized bilinearly.
        label: [H, W] int32 panoptic ids; each pixel takes the nearest one.
        window: from `draw_window`.
        crop_size: (height, width) of the padded crop.
        policy: color operations for the scaled image; with a policy, values are truncated to whole numbers.
        chain: scalar int32, which of the policy's chains is applied; see `autoaugment.draw_chain`.

    Returns:
        The part of image and label inside the window, mirrored where the window says so; `pad_crop` makes it full size.
    """
    begin = tf.maximum(window.origin, 0)
    size = tf.minimum(window.origin + tf.constant(crop_size), window.scaled_size) - begin
    before = begin - window.origin
    # In a mirrored crop, what was after the image comes before it.
    mirrored = tf.constant(crop_size) - size - before
    return Crop(
        _cut_image(image, window, begin, size, policy, chain),
        _cut_label(label, window, begin, size),
        tf.where([False, window.flip], mirrored, before),
    )


def pad_crop(crop: Crop, crop_size: tuple[int, int], padding_id: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Pads a crop to its full size.

    Args:
        crop: from `cut_crop`.
        crop_size: (height, width), the h and w below.
        padding_id: panoptic id of padding.

    Returns:
        Image [h, w, 3] float32, padded with `PADDING_GREY`, and label [h, w] int32, padded with `padding_id`.
    """
    after = tf.constant(crop_size) - tf.shape(crop.label) - crop.place
    paddings = tf.stack([crop.place, after], 1)
    label = tf.pad(crop.label, paddings, constant_values=padding_id)
    image = tf.pad(crop.image, tf.concat([paddings, [[0, 0]]], 0), constant_values=PADDING_GREY)
    return tf.ensure_shape(image, [*crop_size, 3]), tf.ensure_shape(label, crop_size)


def _cut_image(
    image: tf.Tensor,
    window: Window,
    begin: tf.Tensor,
    size: tf.Tensor,
    policy: Policy | None,
    chain: tf.Tensor | None,
) -> tf.Tensor:
    """Float32 pixels of the scaled image from `begin`, [2], on: `size`, [2], of them, mirrored where drawn."""
    # Two resizes, as in DeepLab2: one would give other pixels.
    scaled = resize_align_corners(resize_align_corners(image, window.fitted_size), window.scaled_size)
    if policy is None:
        pixels = _cut(scaled, begin, size)
    else:
        # Some operations depend on all values of the image, so they are applied to all of it. Chain 0 has none (and is
        # the most frequent): then the crop is enough.
        plain = chain == 0
        part_begin = tf.where(plain, begin, 0)
        part = _cut(scaled, part_begin, tf.where(plain, size, window.scaled_size))
        part = apply_chain(tf.cast(part, tf.uint8), chain, policy)
        pixels = _cut(part, begin - part_begin, size)
    # This op takes its condition as a tensor, which saves a tf.cond.
    return tf.cast(tf.raw_ops.Reverse(tensor=pixels, dims=tf.stack([False, window.flip, False])), tf.float32)


def _cut_label(label: tf.Tensor, window: Window, begin: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The ids of the pixels that `_cut_image` gives."""
    rows, columns = (
        _source_pixels(begin[axis], size[axis], window.scaled_size[axis], window.fitted_size[axis], side)
        for axis, side in enumerate(tf.unstack(tf.shape(label)))
    )
    return tf.gather(tf.gather(label, rows), tf.where(window.flip, columns[::-1], columns), axis=1)


def _cut(pixels: tf.Tensor, begin: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    return tf.slice(pixels, tf.concat([begin, [0]], 0), tf.concat([size, [-1]], 0))


def _scale_factor(draw: tf.Tensor, scale_range: tuple[float, float], step: float) -> tf.Tensor:
    """A factor from the range for a draw in [0, 1)."""
    smallest, largest = scale_range
    if not step or smallest == largest:
        return smallest + draw * (largest - smallest)
    # As in DeepLab2 the number of factors is truncated and their distance stretched to reach both ends of the range:
    # 0.5 to 2.0 by 0.1, read from a config as float32, makes 15 factors rather than 16.
    count = int((largest - smallest) / step + 1)
    return tf.gather(tf.linspace(tf.constant(smallest), largest, count), tf.cast(draw * count, tf.int32))


def _source_pixels(
    begin: tf.Tensor, count: tf.Tensor, scaled: tf.Tensor, fitted: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    """Along one axis: indices [count] of the label's pixels that scaled pixels begin, begin + 1, ... come from.

    Args:
        begin: the first scaled pixel.
        count: how many.
        scaled: length of the scaled image along this axis.
        fitted: its length before the random scale.
        size: the label's own length.
    """
    return _nearest(_nearest(tf.range(begin, begin + count), fitted, scaled), size, fitted)


def _nearest(index: tf.Tensor, size: tf.Tensor, scaled: tf.Tensor) -> tf.Tensor:
    """Indices, in a line of `size` pixels, of those nearest to the given ones in a line of `scaled` pixels.

    Halves are rounded up, as by TensorFlow's resize; both lines have their first and last pixels in the same places.
    """
    ratio = tf.cast(size - 1, tf.float32) / tf.maximum(tf.cast(scaled - 1, tf.float32), 1)
    position = tf.cast(index, tf.float32) * ratio
    # Not floor(position + 0.5), which in float32 also rounds up numbers just below a half.
    whole = tf.floor(position)
    return tf.minimum(tf.cast(whole, tf.int32) + tf.cast(position - whole >= 0.5, tf.int32), size - 1)
