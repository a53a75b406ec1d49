"""The blocks of MOAT (Yang et al., ICLR 2023): mobile convolution, alone or with self-attention after it.

In inference every batch norm becomes part of the convolution before it. The one at the start of a block, which has no
convolution before it, becomes part of the convolution after it. All convolutions pad as TensorFlow's "SAME" does, also
strided ones, because DeepLab2's MOAT was trained so.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.initializers import small_normal
from deeplab2_kmax.model.layers.layer_norm import LayerNorm
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization
from deeplab2_kmax.model.layers.precision import add_float32_weight, as_float32
from deeplab2_kmax.model.layers.recomputation import RecomputableLayer
from deeplab2_kmax.model.layers.regularization import drop_path
from deeplab2_kmax.model.layers.relative_attention import RelativeAttention

# Channels inside a mobile convolution, as a multiple of its output channels.
_EXPANSION = 4
# Channels inside the gates, as a fraction of the block's output channels.
_SQUEEZE = 0.25
# Epsilon of the layer norm before attention: DeepLab2's, not the 1e-6 of other layer norms.
_ATTENTION_EPSILON = 1e-5


class MobileConvBlock(RecomputableLayer):
    """Inverted bottleneck: [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), filters].

    The branch is batch norm, 1x1 convolution to 4 * filters channels, depthwise 3x3 convolution, gates, and a 1x1
    convolution back to `filters`. It is added to the input, which is pooled and projected where shapes differ.

    Args:
        filters: output channels.
        normalization: settings of the batch norms.
        stride: of the depthwise convolution, and of the shortcut's average pooling (over 3x3).
        keep_prob: probability that the residual branch is kept in training.
        squeezes: whether gates that depend on the mean over all pixels scale the channels (squeeze and excitation).
    """

    def __init__(
        self,
        filters: int,
        normalization: Normalization,
        stride: int = 1,
        keep_prob: float = 1.0,
        squeezes: bool = True,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.filters = filters
        self.stride = stride
        self.keep_prob = keep_prob
        self.activate = activation("gelu")
        expanded = _EXPANSION * filters
        self.pre_norm = BatchNorm(normalization, name="pre_norm")
        self.expand_conv = PointwiseConv(expanded, use_bias=False, name="expand_conv")
        self.expand_norm = BatchNorm(normalization, name="expand_norm")
        self.depthwise_conv = StridedDepthwiseConv(stride, name="depthwise_conv")
        self.depthwise_norm = BatchNorm(normalization, name="depthwise_norm")
        self.se = Gates(max(1, int(_SQUEEZE * filters)), expanded, name="se") if squeezes else None
        self.shrink_conv = PointwiseConv(filters, name="shrink_conv")

    def build(self, input_shape):
        channels = input_shape[-1]
        expanded = [None, _EXPANSION * self.filters]
        self.pre_norm.build([None, channels])
        self.expand_conv.build([None, channels])
        for layer in (self.expand_norm, self.depthwise_conv, self.depthwise_norm, self.shrink_conv):
            layer.build(expanded)
        self.shortcut_conv = None if channels == self.filters else PointwiseConv(self.filters, name="shortcut_conv")
        super().build(input_shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        hidden = self._depthwise(self._expanded(x, training), training)
        if self.se is not None:
            hidden *= self.se(hidden)
        return self._shortcut(x) + drop_path(self.shrink_conv(hidden), self.keep_prob, training)

    def _expanded(self, x, training):
        if training:
            x = self.expand_conv(self.pre_norm(x, training=True))
            return self.activate(self.expand_norm(x, training=True), True)
        # ((x * before + shift_before) K) * after + shift_after is one linear map of x. The first shift can be absorbed
        # because a 1x1 convolution has no padding, to which the shift would not apply.
        before, shift_before = self.pre_norm.affine()
        after, shift_after = self.expand_norm.affine()
        kernel = self.expand_conv.kernel * after
        bias = tf.linalg.matvec(kernel[0, 0], shift_before, transpose_a=True) + shift_after
        return pointwise(x, kernel * before[:, tf.newaxis], bias, self.activate)

    def _depthwise(self, x, training):
        if training:
            return self.activate(self.depthwise_norm(self.depthwise_conv(x), training=True), True)
        scale, shift = self.depthwise_norm.affine()
        # The kernel is [3, 3, C, 1]: its channels are the last axis but one.
        kernel = self.depthwise_conv.depthwise_kernel * scale[:, tf.newaxis]
        return self.activate(tf.nn.bias_add(self.depthwise_conv.convolve(x, kernel), tf.cast(shift, x.dtype)))

    def _shortcut(self, x):
        if self.stride > 1:
            x = tf.nn.avg_pool2d(x, 3, self.stride, "SAME")
        return x if self.shortcut_conv is None else self.shortcut_conv(x)


class MOATBlock(RecomputableLayer):
    """Mobile convolution without gates, then x + attention(layer_norm(x)).

    [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), filters]

    Args:
        filters, normalization, stride, keep_prob: of `MobileConvBlock`; keep_prob holds for the attention too.
        learned_size: of `RelativeAttention`.
    """

    def __init__(
        self,
        filters: int,
        normalization: Normalization,
        stride: int = 1,
        keep_prob: float = 1.0,
        learned_size: int | None = None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.keep_prob = keep_prob
        self.convolution = MobileConvBlock(
            filters, normalization, stride, keep_prob, squeezes=False, name="convolution"
        )
        self.attention_norm = LayerNorm(_ATTENTION_EPSILON, name="attention_norm")
        self.attention = RelativeAttention(filters, learned_size, name="attention")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        x = self.convolution(x, training=training)
        return x + drop_path(self.attention(self.attention_norm(x)), self.keep_prob, training)


class Gates(tf.keras.layers.Layer):
    """Squeeze and excitation (Hu et al., 2018): features [B, H, W, C] -> factors in (0, 1) for their channels.

    The factors are [B, 1, 1, C] and depend on the mean over all pixels.

    Args:
        squeezed: channels of the hidden layer.
        channels: C.
    """

    def __init__(self, squeezed: int, channels: int, name: str | None = None):
        super().__init__(name=name)
        self.reduce = PointwiseConv(squeezed, name="reduce")
        self.expand = PointwiseConv(channels, name="expand")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        mean = tf.reduce_mean(as_float32(x), [1, 2], keepdims=True)
        return tf.sigmoid(self.expand(tf.nn.silu(self.reduce(mean))))


class PointwiseConv(tf.keras.layers.Layer):
    """1x1 convolution: [B, H, W, C] -> [B, H, W, filters].

    Args:
        filters: output channels.
        use_bias: whether there is a bias. A convolution that a batch norm follows needs none.
    """

    def __init__(self, filters: int, use_bias: bool = True, name: str | None = None):
        super().__init__(name=name)
        self.filters = filters
        self.use_bias = use_bias

    def build(self, input_shape):
        self.kernel = add_float32_weight(self, "kernel", [1, 1, input_shape[-1], self.filters], small_normal())
        self.bias = add_float32_weight(self, "bias", [self.filters], "zeros") if self.use_bias else None
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if self.bias is None:
            return tf.nn.conv2d(x, tf.cast(self.kernel, x.dtype), 1, "VALID")
        return pointwise(x, self.kernel, self.bias)


def pointwise(
    x: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    activate: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tf.Tensor:
    """1x1 convolution in the precision of x, then an activation.

    Args:
        x: [B, H, W, C].
        kernel: [1, 1, C, D], float32.
        bias: [D], float32.
        activate: the activation.

    Returns:
        [B, H, W, D].
    """
    # A matrix product, because on CPUs TensorFlow fuses those with bias and GELU, but not convolutions.
    kernel, bias = tf.cast(kernel, x.dtype), tf.cast(bias, x.dtype)
    product = tf.matmul(tf.reshape(x, [-1, kernel.shape[2]]), kernel[0, 0])
    shape = tf.concat([tf.shape(x)[:3], [kernel.shape[3]]], 0)
    y = tf.reshape(activate(tf.nn.bias_add(product, bias)), shape)
    # The dynamic shape hides height and width even where they are known.
    return tf.ensure_shape(y, [*x.shape[:3], kernel.shape[3]])


class StridedDepthwiseConv(tf.keras.layers.Layer):
    """3x3 convolution of each channel with a kernel of its own, without bias.

    [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), C]

    Args:
        stride: of the convolution.
    """

    def __init__(self, stride: int, name: str | None = None):
        super().__init__(name=name)
        self.stride = stride

    def build(self, input_shape):
        self.depthwise_kernel = add_float32_weight(self, "depthwise_kernel", [3, 3, input_shape[-1], 1], small_normal())
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.convolve(x, self.depthwise_kernel)

    def convolve(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """As `call`, with another kernel [3, 3, C, 1], float32, such as one into which a batch norm is folded."""
        return tf.nn.depthwise_conv2d(x, tf.cast(kernel, x.dtype), [1, self.stride, self.stride, 1], "SAME")
