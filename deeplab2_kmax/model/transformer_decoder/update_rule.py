"""The interface of update rules: all take the same inputs and return the same outputs, so they are interchangeable.

A rule is a Keras layer `Rule(settings, pixel_channels, normalization)`. It is called as `rule(inputs, training=False)`
with a `RuleInput` and returns a `RuleOutput`. It knows nothing of the network around it: the same rule works in the
decoder of the kMaX skeleton and between the blocks of MaX-DeepLab's encoder, at any stride and with any number of pixel
channels.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.model.heads import Prediction
from deeplab2_kmax.model.layers.shapes import shape_of


class RuleInput(NamedTuple):
    """What a rule works on: B images, h x w pixels, N centers, D bottleneck channels.

    Attributes:
        pixels: [B, h, w, D], projected and activated.
        centers: [B, N, D], projected and activated.
        raw_centers: [B, N, center_channels], the centers at the layer's input.
        previous_logits: [B, h', w', N], assignment logits of the layer before, at its resolution; None in the first.
        prediction: masks and classes that the centers predict on these pixels; None without deep supervision.
    """

    pixels: tf.Tensor
    centers: tf.Tensor
    raw_centers: tf.Tensor
    previous_logits: tf.Tensor | None = None
    prediction: Prediction | None = None


class RuleOutput(NamedTuple):
    """The updates of centers and pixels.

    Attributes:
        center_updates: residual branches [B, N, center_channels]. Each is dropped by itself in training (drop path);
            they are added to the centers before the activation.
        pixel_update: [B, h, w, pixel_channels], added to the pixels, which are not activated after it; or None.
        assignment: [B, h, w, N], not negative, sums to one over the centers at each pixel. k-means: one-hot; CMT: the
            soft assignment Z; MaX: the attention of pixels to centers, averaged over heads.
        assignment_logits: [B, h, w, N], logits whose softmax or argmax is the assignment (but for the bias of CMT's
            reference masks, which is left out here); None where there are none.
        reference_boxes: [B, N, 4], center x, center y, width and height of each center's reference mask, in fractions
            of the image; or None.
    """

    center_updates: tuple[tf.Tensor, ...]
    pixel_update: tf.Tensor | None
    assignment: tf.Tensor
    assignment_logits: tf.Tensor | None = None
    reference_boxes: tf.Tensor | None = None


def flatten_pixels(x: tf.Tensor) -> tf.Tensor:
    """[B, h, w, C] -> [B, h * w, C]."""
    return tf.reshape(x, [shape_of(x)[0], -1, x.shape[-1]])


def unflatten_pixels(x: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    """[B, h * w, C] -> [B, h, w, C] with the height and width of `reference` [B, h, w, any]."""
    _, height, width, _ = shape_of(reference)
    return tf.reshape(x, [-1, height, width, x.shape[-1]])
