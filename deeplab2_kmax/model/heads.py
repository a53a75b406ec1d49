"""Prediction heads: mask logits and class logits from pixels and cluster centers; auxiliary semantic logits.

The mask logits of cluster n at pixel p are <f_p, g_n>: pixel embeddings f of unit length against mask kernels g, batch
normalized with one scale for all clusters (Wang et al., "MaX-DeepLab", CVPR 2021, equation 10). They are float32 in
every precision: which center is nearest to a pixel is decided by small differences between them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.model.layers.convolution import Linear, LinearNorm, SeparableConvNorm
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization
from deeplab2_kmax.model.layers.precision import as_float32

# Share of clusters expected to be void before training; biases the class logits.
VOID_PRIOR = 0.9


class Prediction(NamedTuple):
    """What cluster centers predict on a grid of pixels; float32.

    Attributes:
        mask_logits: [B, h, w, N] of each pixel belonging to each cluster.
        class_logits: [B, N, classes + 1]; thing classes, then stuff classes, then void.
        pixel_feature: [B, h, w, D] of unit length.
    """

    mask_logits: tf.Tensor
    class_logits: tf.Tensor
    pixel_feature: tf.Tensor


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """Sizes of the heads.

    Attributes:
        pixel_channels: channels of the 5x5 convolution on pixels.
        embedding_channels: dimension in which pixels meet mask kernels.
        num_classes: thing and stuff classes, void not counted.
        activation: of the 5x5 convolution, "gelu" (the kMaX skeleton) or "relu" (MaX-DeepLab's).
    """

    pixel_channels: int
    embedding_channels: int
    num_classes: int
    activation: str = "gelu"


class SegmentationHead(tf.keras.layers.Layer):
    """5x5 separable convolution, then 1x1: [B, h, w, C] -> [B, h, w, output_channels]."""

    def __init__(
        self,
        channels: int,
        output_channels: int,
        normalization: Normalization,
        activation: str = "gelu",
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.conv = SeparableConvNorm(channels, 5, normalization, activation, name="conv")
        self.final = Linear(output_channels, kernel_rank=4, name="final")

    def call(self, x, training=False):
        return self.final(self.conv(x, training=training))


class PredictionHead(tf.keras.layers.Layer):
    """Pixels [B, h, w, C] and two embeddings of the centers [B, N, E] -> `Prediction`."""

    def __init__(self, settings: HeadSettings, normalization: Normalization, name: str | None = None):
        super().__init__(name=name)
        embedding = settings.embedding_channels
        self.pixel_head = SegmentationHead(
            settings.pixel_channels, embedding, normalization, settings.activation, name="pixel_head"
        )
        self.pixel_norm = BatchNorm(normalization, name="pixel_norm")
        self.mask_head = LinearNorm(embedding, normalization, name="mask_head")
        # A small scale: at the start all clusters claim every pixel alike.
        self.mask_norm = BatchNorm(normalization, tf.keras.initializers.Constant(0.1), name="mask_norm")
        self.class_head = Linear(settings.num_classes + 1, kernel_rank=3, name="class_head")
        self.void_bias = math.log(settings.num_classes * VOID_PRIOR / (1.0 - VOID_PRIOR))

    def call(self, pixels, class_embedding, mask_embedding, training=False):
        feature = self.pixel_norm(as_float32(self.pixel_head(pixels, training=training)), training=training)
        feature = tf.math.l2_normalize(feature, axis=-1)
        kernels = as_float32(self.mask_head(mask_embedding, training=training))
        masks = tf.einsum("bhwd,bnd->bhwn", feature, kernels)
        masks = tf.squeeze(self.mask_norm(masks[..., tf.newaxis], training=training), -1)
        classes = as_float32(self.class_head(class_embedding))
        bias = tf.one_hot(classes.shape[-1] - 1, classes.shape[-1], on_value=self.void_bias, dtype=classes.dtype)
        return Prediction(masks, classes + bias, feature)
