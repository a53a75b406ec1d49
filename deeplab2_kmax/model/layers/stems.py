"""Stems, the first convolutions of an encoder, that more than one encoder uses."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.convolution import ConvNorm
from deeplab2_kmax.model.layers.normalization import Normalization


class InceptionStem(tf.keras.layers.Layer):
    """Three 3x3 convolutions, the first with stride 2: [B, H, W, 3] -> [B, ceil(H / 2), ceil(W / 2), 2 * channels].

    From Inception-v4 (Szegedy et al., AAAI 2017); DeepLab2's "ResNet-50-beta" has it too.

    Args:
        channels: of the first two convolutions.
        normalization: settings of the batch norms.
        activation: "relu" or "gelu", after the first two convolutions. The last one is not activated, because the
            residual blocks that follow activate their inputs themselves.
    """

    def __init__(self, channels: int, normalization: Normalization, activation: str = "relu", name: str = "stem"):
        super().__init__(name=name)
        self.conv1 = ConvNorm(channels, 3, normalization, stride=2, activation=activation, name="conv1")
        self.conv2 = ConvNorm(channels, 3, normalization, activation=activation, name="conv2")
        self.conv3 = ConvNorm(2 * channels, 3, normalization, name="conv3")

    def call(self, image: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = self.conv2(self.conv1(image, training=training), training=training)
        return self.conv3(x, training=training)
