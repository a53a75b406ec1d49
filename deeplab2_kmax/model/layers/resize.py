"""Bilinear resizing with aligned corners."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.shapes import shape_of


def resize_bilinear(x: tf.Tensor, size: list[int | tf.Tensor]) -> tf.Tensor:
    """Resizes `x` [B, h, w, C] to `size` (height, width), the corner pixels of both grids coinciding.

    Features of an image of stride * k + 1 pixels lie on grids that share their corners, so this is the only
    resizing that keeps them in place.
    """
    if x.shape.as_list()[1:3] == list(size):
        return x
    channels = x.shape[-1]
    y = tf.raw_ops.ResizeBilinear(images=x, size=tf.stack(size), align_corners=True)
    height, width = (side if isinstance(side, int) else None for side in size)
    return tf.ensure_shape(tf.cast(y, x.dtype), [None, height, width, channels])


def resize_like(x: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    """Resizes `x` [B, h, w, C] to the height and width of `reference` [B, H, W, any]."""
    return resize_bilinear(x, shape_of(reference)[1:3])
