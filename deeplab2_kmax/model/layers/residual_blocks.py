"""Residual blocks: a branch of convolutions or attention, plus a shortcut.

The blocks take and return features *before* their activation, and activate them on entry. This is DeepLab2's
convention, and all of this package keeps it: whoever reads the features of an encoder or a decoder activates them
first. The last normalization of the residual branch starts at zero, so a new block returns its shortcut.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation as activation_by_name
from deeplab2_kmax.model.layers.axial_attention import AxialAttention2D
from deeplab2_kmax.model.layers.convolution import ConvNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.recomputation import RecomputableLayer
from deeplab2_kmax.model.layers.regularization import drop_path

# Output channels of a block, as a multiple of its `filters`.
EXPANSION = 4


class _ResidualBlock(RecomputableLayer):
    """What all blocks share: activation on entry, shortcut, drop path, and 4 * filters output channels."""

    def __init__(
        self,
        filters: int,
        normalization: Normalization,
        activation: str,
        stride: int,
        keep_prob: float,
        name: str | None,
    ):
        super().__init__(name=name)
        self.output_channels = filters * EXPANSION
        self.normalization = normalization
        self.activate = activation_by_name(activation)
        self.stride = stride
        self.keep_prob = keep_prob

    def last_conv(self, kernel_size: int, name: str, dilation: int = 1) -> ConvNorm:
        """The convolution that ends the branch: without activation, and zero in a new block."""
        return ConvNorm(
            self.output_channels,
            kernel_size,
            self.normalization,
            dilation=dilation,
            gamma_initializer="zeros",
            name=name,
        )

    def build(self, input_shape):
        self.shortcut = None
        if input_shape[-1] != self.output_channels:
            self.shortcut = ConvNorm(self.output_channels, 1, self.normalization, stride=self.stride, name="shortcut")
        super().build(input_shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = self.activate(x, training)
        branch = drop_path(self.branch(x, training), self.keep_prob, training)
        # As in the first ResNet, the shortcut starts from activated features; in ResNet v2 it does not.
        if self.shortcut is not None:
            x = self.shortcut(x, training=training)
        elif self.stride > 1:
            x = x[:, :: self.stride, :: self.stride]
        return x + branch

    def branch(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        """The residual branch of the activated features `x` [B, H, W, C]; it is added to their shortcut."""
        raise NotImplementedError


class BottleneckBlock(_ResidualBlock):
    """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), 4 * filters] by a 3x3 convolution (He et al., 2016).

    Args:
        filters: channels inside the bottleneck.
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
        super().__init__(filters, normalization, activation, stride, keep_prob, name)
        self.conv1 = ConvNorm(filters, 1, normalization, activation=activation, name="conv1")
        self.conv2 = ConvNorm(filters, 3, normalization, stride, dilation, activation, name="conv2")
        self.conv3 = self.last_conv(1, "conv3")

    def branch(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        x = self.conv2(self.conv1(x, training=training), training=training)
        return self.conv3(x, training=training)


class AxialBlock(_ResidualBlock):
    """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), 4 * filters] by axial attention.

    Args:
        filters: a quarter of the output channels.
        normalization: settings of the batch norms.
        activation: "relu" or "gelu".
        stride: of the attention (each axis is attended to in full, then thinned out) and the shortcut.
        keep_prob: probability that the residual branch is kept in training.
        key_channels: of the attention, a multiple of its eight heads; values have twice as many. None: `filters`.
    """

    def __init__(
        self,
        filters: int,
        normalization: Normalization,
        activation: str = "gelu",
        stride: int = 1,
        keep_prob: float = 1.0,
        key_channels: int | None = None,
        name: str | None = None,
    ):
        super().__init__(filters, normalization, activation, stride, keep_prob, name)
        keys = key_channels or filters
        self.conv1 = ConvNorm(2 * keys, 1, normalization, activation=activation, name="conv1")
        self.attention = AxialAttention2D(keys, 2 * keys, normalization, stride, name="attention")
        self.conv3 = self.last_conv(1, "conv3")

    def branch(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        x = self.attention(self.conv1(x, training=training), training=training)
        return self.conv3(self.activate(x, training), training=training)


class BasicBlock(_ResidualBlock):
    """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), 4 * filters] by two 3x3 convolutions of full width.

    The block of Wide ResNets (Zifeng Wu et al., "Wider or Deeper", 2019).

    Args:
        filters: a quarter of the output channels.
        normalization: settings of the batch norms.
        activation: "relu" or "gelu".
        stride: of the first convolution and the shortcut.
        dilation: of the first convolution.
        second_dilation: dilation of the second convolution; None: as the first.
        keep_prob: probability that the residual branch is kept in training.
    """

    def __init__(
        self,
        filters: int,
        normalization: Normalization,
        activation: str = "relu",
        stride: int = 1,
        dilation: int = 1,
        second_dilation: int | None = None,
        keep_prob: float = 1.0,
        name: str | None = None,
    ):
        super().__init__(filters, normalization, activation, stride, keep_prob, name)
        self.conv1 = ConvNorm(self.output_channels, 3, normalization, stride, dilation, activation, name="conv1")
        self.conv_out = self.last_conv(3, "conv_out", second_dilation or dilation)

    def branch(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        return self.conv_out(self.conv1(x, training=training), training=training)
