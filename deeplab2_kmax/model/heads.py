"""Prediction heads: mask logits and class logits from pixels and cluster centers; auxiliary semantic logits.

The mask logit of cluster n at pixel p is <f_p, g_n>, the inner product of a pixel embedding f of unit length and a mask
kernel g, followed by a batch norm with one scale for all clusters (Wang et al., "MaX-DeepLab", CVPR 2021, equation 10).
Mask logits are float32 in every precision, because small differences between them decide which center is nearest to a
pixel.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.model.layers.convolution import Linear, LinearNorm, SeparableConvNorm
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization
from deeplab2_kmax.model.layers.precision import as_float32
from deeplab2_kmax.protos import model_pb2

# Probability of void that a new model predicts for every cluster. Most clusters match no segment, so training starts
# more steadily than it would from equal probabilities (as in Lin et al., "Focal Loss", ICCV 2017).
VOID_PRIOR = 0.9


class Prediction(NamedTuple):
    """Masks and classes that cluster centers predict on a grid of pixels; all float32.

    Attributes:
        mask_logits: [B, h, w, N], logits of each pixel for each cluster.
        class_logits: [B, N, classes + 1]; thing classes, then stuff classes, then void.
        pixel_feature: [B, h, w, D], pixel embeddings of unit length.
    """

    mask_logits: tf.Tensor
    class_logits: tf.Tensor
    pixel_feature: tf.Tensor


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """Sizes of the prediction heads.

    Attributes:
        pixel_channels: channels of the 5x5 convolution on pixels.
        embedding_channels: channels D of pixel embeddings and mask kernels.
        num_classes: number of thing and stuff classes, without void.
        activation: of the 5x5 convolution, "gelu" (the kMaX skeleton) or "relu" (MaX-DeepLab's).
    """

    pixel_channels: int
    embedding_channels: int
    num_classes: int
    activation: str = "gelu"

    @classmethod
    def from_options(cls, options: model_pb2.HeadOptions, num_classes: int, activation: str) -> HeadSettings:
        """Reads the settings from the config's `model_options.max_deeplab.pixel_space_head`.

        Args:
            options: the message.
            num_classes: number of thing and stuff classes of the data set, without void.
            activation: "gelu" or "relu".
        """
        return cls(options.head_channels, options.output_channels, num_classes, activation)


class SegmentationHead(tf.keras.layers.Layer):
    """Separable 5x5 convolution, then a 1x1 convolution: [B, h, w, C] -> [B, h, w, output_channels].

    Args:
        channels: between the two convolutions.
        output_channels: of the second.
        normalization: settings of the batch norms of the first.
        activation: of the first, "gelu" or "relu".
    """

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

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.final(self.conv(x, training=training))


class PredictionHead(tf.keras.layers.Layer):
    """Pixels [B, h, w, C] and two embeddings of the centers [B, N, E] -> `Prediction`.

    Args:
        settings: sizes of the heads.
        normalization: settings of the batch norms.
    """

    def __init__(self, settings: HeadSettings, normalization: Normalization, name: str | None = None):
        super().__init__(name=name)
        embedding = settings.embedding_channels
        self.pixel_head = SegmentationHead(
            settings.pixel_channels, embedding, normalization, settings.activation, name="pixel_head"
        )
        self.pixel_norm = BatchNorm(normalization, name="pixel_norm")
        self.mask_head = LinearNorm(embedding, normalization, name="mask_head")
        # With a small scale the softmax over clusters is almost uniform in a new model: no cluster claims a pixel yet.
        self.mask_norm = BatchNorm(normalization, tf.keras.initializers.Constant(0.1), name="mask_norm")
        self.class_head = Linear(settings.num_classes + 1, kernel_rank=3, name="class_head")
        # Added to the logit of void. If all class logits are equal, void then has the probability VOID_PRIOR.
        self.void_bias = math.log(settings.num_classes * VOID_PRIOR / (1.0 - VOID_PRIOR))

    def call(
        self, pixels: tf.Tensor, class_embedding: tf.Tensor, mask_embedding: tf.Tensor, training: bool = False
    ) -> Prediction:
        feature = self.pixel_norm(as_float32(self.pixel_head(pixels, training=training)), training=training)
        feature = tf.math.l2_normalize(feature, axis=-1)
        kernels = as_float32(self.mask_head(mask_embedding, training=training))
        masks = tf.einsum("bhwd,bnd->bhwn", feature, kernels)
        # The new axis makes all clusters one channel, which has one scale and one shift.
        masks = tf.squeeze(self.mask_norm(masks[..., tf.newaxis], training=training), -1)
        classes = as_float32(self.class_head(class_embedding))
        bias = tf.one_hot(classes.shape[-1] - 1, classes.shape[-1], on_value=self.void_bias, dtype=classes.dtype)
        return Prediction(masks, classes + bias, feature)
