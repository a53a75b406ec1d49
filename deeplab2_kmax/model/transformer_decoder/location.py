"""Where clusters are in the image: reference boxes and masks of centers, and a convolution over coordinates.

Positions are fractions of the image: x runs from 0 at the leftmost column of pixels to 1 at the rightmost one, y from 0
at the top row to 1 at the bottom row. So grids of all strides share their corners, as feature maps do.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.convolution import LinearNorm, linear
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.precision import add_float32_weight, as_float32
from deeplab2_kmax.model.layers.shapes import shape_of
from deeplab2_kmax.model.transformer_decoder.settings import TransformerDecoderSettings
from deeplab2_kmax.model.transformer_decoder.update_rule import flatten_pixels

# Shorter sides of boxes count as this long, in fractions of the image, so that Gaussians do not become infinitely thin.
_SMALLEST_SIDE = 1e-3


class ReferenceBoxes(tf.keras.layers.Layer):
    """Centers [B, N, C] -> float32 boxes [B, N, 4]: center x, center y, width, height, in (0, 1) of the image.

    This is a perceptron with one hidden layer. In a new model all boxes are in the middle of the image and half as wide
    and half as high as it, because the last layer is zero and sigmoid(0) is 1/2.

    Args:
        settings: channels of a center, and activation.
        normalization: settings of the batch norm.
    """

    def __init__(self, settings: TransformerDecoderSettings, normalization: Normalization, name: str | None = None):
        super().__init__(name=name, autocast=False)
        channels = settings.center_channels
        self.hidden = LinearNorm(channels, normalization, settings.activation, name="hidden")
        self.kernel = add_float32_weight(self, "kernel", [1, channels, 4], "zeros")
        self.bias = add_float32_weight(self, "bias", [4], "zeros")

    def call(self, centers: tf.Tensor, training: bool = False) -> tf.Tensor:
        return tf.sigmoid(linear(as_float32(self.hidden(centers, training=training)), self.kernel[0], self.bias))


def positions(length: int | tf.Tensor) -> tf.Tensor:
    """Positions of the pixels along an axis: [length], float32, from 0 to 1; 0 if there is a single pixel."""
    count = tf.cast(length, tf.float32)
    return tf.range(count) / tf.maximum(count - 1.0, 1.0)


def log_reference_masks(boxes: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    """Computes the logarithms of reference masks.

    The mask of a box is a Gaussian, R(x, y) = exp(-1/2 (((x - cx) / (w / 2))^2 + ((y - cy) / (h / 2))^2)).

    Args:
        boxes: [B, N, 4], center x, center y, width, height.
        reference: [B, h, w, any], a tensor whose grid the masks are made on.

    Returns:
        [B, h, w, N], at most 0.
    """
    # The exponent is a sum of one term for the row and one for the column, so squares are taken of vectors only.
    _, height, width, _ = shape_of(reference)
    x, y, box_width, box_height = tf.unstack(boxes, axis=-1)

    def along(length: int | tf.Tensor, center: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
        distance = positions(length)[:, tf.newaxis] - center[:, tf.newaxis]
        return -0.5 * tf.square(distance / (0.5 * tf.maximum(side, _SMALLEST_SIDE))[:, tf.newaxis])

    down, across = along(height, y, box_height), along(width, x, box_width)
    return down[:, :, tf.newaxis] + across[:, tf.newaxis]


def reference_masks(boxes: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    """Reference masks in (0, 1] of `boxes` [B, N, 4] on the grid of `reference` [B, h, w, any]: [B, h, w, N]."""
    return tf.exp(log_reference_masks(boxes, reference))


class CoordinateConvolution(tf.keras.layers.Layer):
    """1x1 convolution of what pixels gather from their clusters, and coordinates (after Liu et al., CoordConv, 2018).

    With assignment Z [B, h, w, N], values v [B, N, V], boxes r [B, N, 4] and the position g of each pixel:

        conv[Z v; Z r; g; g - Z r_xy]        [B, h * w, V]

    where g and r_xy are scaled to -1 .. 1. There is no normalization and no activation.

    Args:
        channels: V.
    """

    def __init__(self, channels: int, name: str | None = None):
        super().__init__(name=name, autocast=False)
        self.kernel = add_float32_weight(self, "kernel", [1, channels + 8, channels], "he_normal")
        self.sizes = [channels, 4, 2, 2]

    def call(self, assignment: tf.Tensor, values: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        # conv(Z x) equals Z conv(x), because both are linear and Z sums to one over the centers. So the kernel is
        # applied to the centers, and Z spreads the results over the pixels, of which there are many more.
        of_values, of_boxes, of_position, of_offset = tf.split(self.kernel[0], self.sizes, axis=0)
        box_positions = 2.0 * boxes[..., :2] - 1.0
        per_center = linear(as_float32(values), of_values) + linear(boxes, of_boxes) - linear(box_positions, of_offset)
        per_position = linear(_grid(assignment), of_position + of_offset)
        gathered = tf.matmul(flatten_pixels(tf.cast(assignment, values.dtype)), tf.cast(per_center, values.dtype))
        return gathered + tf.cast(per_position, values.dtype)


def _grid(reference: tf.Tensor) -> tf.Tensor:
    """Position (x, y) of each pixel of `reference` [B, h, w, any], in -1 .. 1: [1, h * w, 2]."""
    _, height, width, _ = shape_of(reference)
    x, y = tf.meshgrid(positions(width), positions(height))
    grid = tf.reshape(tf.stack([x, y], axis=-1), [1, -1, 2])
    return 2.0 * grid - 1.0
