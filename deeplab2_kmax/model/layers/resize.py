"""Bilinear resizing with aligned corners."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from deeplab2_kmax.model.layers.shapes import shape_of


def resize_bilinear(x: tf.Tensor, size: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """Resizes feature maps so that the corner pixels of both grids coincide.

    Images have sides of stride * k + 1 pixels, so that the feature maps of all strides share their corner pixels. No
    other kind of resizing keeps such features in place.

    Args:
        x: [B, h, w, C].
        size: (height, width) of the result.

    Returns:
        [B, height, width, C] of the type of `x`.
    """
    if x.shape.as_list()[1:3] == list(size):
        return x
    channels = x.shape[-1]
    # tf.image.resize cannot align corners; this operation of TensorFlow 1 can. It always computes in float32.
    y = tf.raw_ops.ResizeBilinear(images=x, size=tf.stack(size), align_corners=True)
    # The operation forgets the static shape, which layers need to create their weights.
    height, width = (side if isinstance(side, int) else None for side in size)
    return tf.ensure_shape(tf.cast(y, x.dtype), [None, height, width, channels])


def resize_like(x: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    """Resizes `x` [B, h, w, C] to the height and width of `reference` [B, H, W, any]: [B, H, W, C]."""
    return resize_bilinear(x, shape_of(reference)[1:3])
