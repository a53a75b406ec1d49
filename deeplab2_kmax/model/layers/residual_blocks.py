"""Residual blocks of bottleneck shape: 1x1 convolution, a spatial operation, 1x1 convolution, plus a shortcut.

The blocks take and return features *before* their activation, and activate them on entry; the last normalization of
the residual branch starts at zero, so a new block starts as its shortcut.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation as activation_by_name
from deeplab2_kmax.model.layers.axial_attention import AxialAttention2D
from deeplab2_kmax.model.layers.convolution import ConvNorm
from deeplab2_kmax.model.layers.drop_path import drop_path
from deeplab2_kmax.model.layers.normalization import Normalization

EXPANSION = 4


class _ResidualBlock(tf.keras.layers.Layer):
    """What both kinds of block share: entry activation, first and last convolution, shortcut, drop path."""

    def __init__(self, filters, first_filters, normalization, activation, stride, keep_prob, name):
        super().__init__(name=name)
        self.output_channels = filters * EXPANSION
        self.normalization = normalization
        self.activate = activation_by_name(activation)
        self.stride = stride
        self.keep_prob = keep_prob
        self.conv1 = ConvNorm(first_filters, 1, normalization, activation=activation, name="conv1")
        self.conv3 = ConvNorm(self.output_channels, 1, normalization, gamma_initializer="zeros", name="conv3")

    def build(self, input_shape):
        self.shortcut = None
        if input_shape[-1] != self.output_channels:
            self.shortcut = ConvNorm(self.output_channels, 1, self.normalization, stride=self.stride, name="shortcut")
        super().build(input_shape)

    def call(self, x, training=False):
        x = self.activate(x)
        branch = self.spatial(self.conv1(x, training=training), training)
        branch = drop_path(self.conv3(branch, training=training), self.keep_prob, training)
        if self.shortcut is not None:
            x = self.shortcut(x, training=training)
        elif self.stride > 1:
            x = x[:, :: self.stride, :: self.stride]
        return x + branch

    def spatial(self, x, training):
        """The operation between the two 1x1 convolutions; returns activated features."""
        raise NotImplementedError


class BottleneckBlock(_ResidualBlock):
    """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), 4 * filters] by a 3x3 convolution (He et al., 2016).

    Args:
        filters: width of the bottleneck.
        normalization: settings of the batch norms.
        activation: "relu" or "gelu".
        stride: of the 3x3 convolution and the shortcut.
        dilation: of the 3x3 convolution.
        keep_prob: probability that the residual branch is kept in training.
    """

    def __init__(
        self,
        filters: int,
        normalization: Normalization,
        activation: str = "relu",
        stride: int = 1,
        dilation: int = 1,
        keep_prob: float = 1.0,
        name: str | None = None,
    ):
        super().__init__(filters, filters, normalization, activation, stride, keep_prob, name)
        self.conv2 = ConvNorm(filters, 3, normalization, stride, dilation, activation, name="conv2")

    def spatial(self, x, training):
        return self.conv2(x, training=training)


class AxialBlock(_ResidualBlock):
    """[B, H, W, C] -> [B, H, W, 4 * filters] by axial attention: keys of `filters`, values of 2 * `filters` channels.

    Args:
        filters: key channels, a multiple of eight.
        normalization: settings of the batch norms.
        activation: "relu" or "gelu".
        keep_prob: probability that the residual branch is kept in training.
    """

    def __init__(
        self,
        filters: int,
        normalization: Normalization,
        activation: str = "gelu",
        keep_prob: float = 1.0,
        name: str | None = None,
    ):
        super().__init__(filters, 2 * filters, normalization, activation, 1, keep_prob, name)
        self.attention = AxialAttention2D(filters, 2 * filters, normalization, name="attention")

    def spatial(self, x, training):
        return self.activate(self.attention(x, training=training))
