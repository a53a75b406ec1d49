"""Sizes and interpolation shared by evaluation and serving: an image is resized as a whole, then padded to the crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import tensorflow as tf

# The network normalizes by x / 127.5 - 1, so this grey becomes zero.
PADDING_GREY = 127.5

# Height and width: numbers, or a tensor [2] int32.
Size = Union[Sequence[int], tf.Tensor]


def resize_align_corners(images: tf.Tensor, size: Size, method: str = "bilinear") -> tf.Tensor:
    """Resizes so that the centers of corner pixels stay at the corners: output i reads input i * (in - 1) / (out - 1).

    Args:
        images: [H, W, C] or [B, H, W, C], of any numeric dtype.
        size: (height, width), Python ints or an int32 tensor [2].
        method: "bilinear", which gives float32, or "nearest", which keeps the dtype and is meant for ids.

    Returns:
        The images at the new size, of the same rank.

    Raises:
        ValueError: the method or the rank is another one.
    """
    rank = images.shape.rank
    if rank not in (3, 4):
        raise ValueError(f"expected [H, W, C] or [B, H, W, C], got shape {images.shape}")
    batch = images if rank == 4 else images[tf.newaxis]
    # tf.image.resize has no align_corners in TensorFlow 2.
    if method == "bilinear":
        # Pictures of bytes stay as they are: their pixels become floats one by one, and a copy in floats, four times as
        # large, is not needed.
        pixels = batch if batch.dtype == tf.uint8 else tf.cast(batch, tf.float32)
        batch = tf.raw_ops.ResizeBilinear(images=pixels, size=size, align_corners=True)
    elif method == "nearest":
        batch = tf.raw_ops.ResizeNearestNeighbor(images=batch, size=size, align_corners=True)
    else:
        raise ValueError(f"expected method 'bilinear' or 'nearest', got {method!r}")
    return batch if rank == 4 else batch[0]


def fitted_size(
    size: tf.Tensor,
    min_size: tuple[int, int] | None = None,
    max_size: tuple[int, int] | None = None,
    factor: int | None = None,
) -> tf.Tensor:
    """The size to which an image is resized; its aspect ratio is kept up to rounding.

    First the image is scaled, up or down, so that both sides just reach `min_size`. Then, if a side exceeds `max_size`,
    it is scaled down to fit. Last, both sides are rounded up to a multiple of `factor` plus one. All is computed in
    float32 and rounded down, as in DeepLab2, so that sizes agree to the pixel.

    Args:
        size: [2] int32, (height, width) of the image.
        min_size: (height, width) in pixels, see above; None: no bound.
        max_size: (height, width) in pixels, see above; None: no bound.
        factor: see above; None or 0: sizes are not rounded. Else `max_size` is first lowered to a multiple plus one.

    Returns:
        [2] int32.
    """
    size = tf.convert_to_tensor(size, tf.int32)
    if min_size:
        size = _scaled(size, tf.reduce_max(_ratios(min_size, size)))
    if max_size:
        if factor:
            # Else rounding up could exceed it.
            max_size = max_size[0] - (max_size[0] - 1) % factor, max_size[1] - (max_size[1] - 1) % factor
        size = _scaled(size, tf.minimum(tf.reduce_min(_ratios(max_size, size)), 1.0))
    if factor:
        size += (1 - size) % factor
    return size


def resize_for_inference(
    images: tf.Tensor,
    crop_size: tuple[int, int],
    min_size: tuple[int, int] | None = None,
    max_size: tuple[int, int] | None = None,
    factor: int | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Prepares images of any size for the network: bilinear resize, then padding below and to the right.

    Args:
        images: [H, W, 3] or [B, H, W, 3] uint8 or float, RGB 0..255; B, H and W may be unknown in a graph.
        crop_size: (height, width) that the network takes.
        min_size: see `fitted_size`.
        max_size: see `fitted_size`; None: the image is made to fit the crop.
        factor: see `fitted_size`.

    Returns:
        The images [h, w, 3] or [B, h, w, 3] float32 of the crop size, 0..255, padded with `PADDING_GREY`; and the size,
        [2] int32, of the resized images, which lie in their upper left corners.
    """
    size = fitted_size(tf.shape(images)[-3:-1], min_size, max_size or crop_size, factor)
    return pad_to(resize_align_corners(images, size), crop_size, PADDING_GREY), size


def pad_to(pixels: tf.Tensor, size: tuple[int, int], value: float) -> tf.Tensor:
    """Pads [H, W, C] or [B, H, W, C] with `value`, below and to the right, to (height, width) `size`.

    Neither side may exceed `size`.
    """
    missing = tf.convert_to_tensor(size, tf.int32) - tf.shape(pixels)[-3:-1]
    batch = pixels.shape[:-3]
    paddings = [*([[0, 0]] * batch.rank), [0, missing[0]], [0, missing[1]], [0, 0]]
    return tf.ensure_shape(tf.pad(pixels, paddings, constant_values=value), [*batch, *size, pixels.shape[-1]])


def _ratios(bound: tuple[int, int], size: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.constant(bound, tf.float64) / tf.cast(size, tf.float64), tf.float32)


def _scaled(size: tf.Tensor, ratio: tf.Tensor) -> tf.Tensor:
    # Without a lower limit, DeepLab2 fails on images so thin that a side is rounded down to 0.
    return tf.maximum(tf.cast(tf.floor(tf.cast(size, tf.float32) * ratio), tf.int32), 1)
