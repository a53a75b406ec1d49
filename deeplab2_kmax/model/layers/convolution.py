"""Convolutions followed by batch normalization and an activation: one layer, one kernel launch in inference.

In inference the normalization is an affine map per channel, so it is folded into the kernel (see `folding.py`): what
runs is a convolution, a bias and an activation, which TensorFlow fuses.
"""

from __future__ import annotations

import itertools

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation as activation_by_name
from deeplab2_kmax.model.layers.folding import FoldingLayer
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization
from deeplab2_kmax.model.layers.precision import add_float32_weight
from deeplab2_kmax.model.layers.shapes import shape_of


class ConvNorm(FoldingLayer):
    """Convolution (no bias), batch norm, activation: [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), filters].

    Strided kernels are padded alike on all sides ((kernel_size - 1) / 2), which keeps features centred on the same
    pixels whatever the parity of the image size.

    Args:
        filters: output channels.
        kernel_size: height and width of the kernel; odd.
        normalization: settings of the batch norm.
        stride, dilation: of the convolution; not both above 1.
        activation: "relu", "gelu" or None.
        gamma_initializer: of the batch norm.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        normalization: Normalization,
        stride: int = 1,
        dilation: int = 1,
        activation: str | None = None,
        gamma_initializer: str = "ones",
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.filters = filters
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation
        self.activate = activation_by_name(activation)
        self.norm = BatchNorm(normalization, gamma_initializer, name="norm")

    def build(self, input_shape):
        shape = [self.kernel_size, self.kernel_size, input_shape[-1], self.filters]
        self.kernel = add_float32_weight(self, "kernel", shape, "he_normal")
        self.norm.build([None, self.filters])
        super().build(input_shape)

    def call(self, x, training=False):
        if training:
            return self.activate(self.norm(self._convolve_with_gradient(x), training=True), True)
        kernel, bias = self.inference_weights()
        return self.activate(tf.nn.bias_add(self._convolve(x, kernel), bias))

    def combined_weights(self):
        scale, shift = self.norm.affine()
        return self.kernel * scale, shift

    def _convolve_with_gradient(self, x):
        kernel = tf.cast(self.kernel, x.dtype)
        if self.dilation == 1:
            return self._convolve(x, kernel)
        return dilated_convolution(x, kernel, self.dilation)

    def _convolve(self, x, kernel):
        if self.stride == 1:
            return tf.nn.conv2d(x, kernel, 1, "SAME", dilations=self.dilation)
        if self.kernel_size == 1:
            return tf.nn.conv2d(x, kernel, self.stride, "VALID")
        side = [(self.kernel_size - 1) // 2] * 2
        return tf.nn.conv2d(x, kernel, self.stride, [[0, 0], side, side, [0, 0]])


def dilated_convolution(x: tf.Tensor, kernel: tf.Tensor, dilation: int) -> tf.Tensor:
    """Dilated convolution that has a gradient on every device: x [B, H, W, C], kernel [k, k, C, D] -> [B, H, W, D].

    CPUs have none for dilated kernels. The way around that, space-to-batch, pads the image to a multiple of the
    dilation, which takes a hundred times as long where the dilation is close to the size of the image; there, each tap
    of the kernel that reaches into the image is applied on its own.
    """
    height, width = x.shape[1:3]
    if height is None or width is None or 2 * dilation < min(height, width):
        return tf.nn.convolution(x, kernel, padding="SAME", dilations=dilation)
    size = kernel.shape[0]
    offsets = [(step - size // 2) * dilation for step in range(size)]
    # One stack of taps: the gradient of a slice is as large as what it was cut from.
    kernels = tf.unstack(tf.reshape(kernel, [size * size, 1, 1, *kernel.shape[2:]]))
    taps = []
    for (down, right), tap in zip(itertools.product(offsets, offsets), kernels):
        if abs(down) < height and abs(right) < width:
            rows, columns = _overlap(down, height), _overlap(right, width)
            seen = tf.nn.conv2d(x[:, rows[0] : rows[1], columns[0] : columns[1]], tap, 1, "VALID")
            border = [(max(-offset, 0), max(offset, 0)) for offset in (down, right)]
            taps.append(tf.pad(seen, [(0, 0), *border, (0, 0)]))
    return tf.add_n(taps)


def _overlap(offset: int, length: int) -> tuple[int, int]:
    """First and last (exclusive) of the positions that others, `offset` before them, look at."""
    return max(offset, 0), length + min(offset, 0)


class DepthwiseConvNorm(FoldingLayer):
    """[B, H, W, C] -> one kernel a channel -> batch norm -> activation -> [B, H, W, C]."""

    def __init__(self, kernel_size: int, normalization: Normalization, activation: str | None = None, name=None):
        super().__init__(name=name)
        self.kernel_size = kernel_size
        self.activate = activation_by_name(activation)
        self.norm = BatchNorm(normalization, name="norm")

    def build(self, input_shape):
        shape = [self.kernel_size, self.kernel_size, input_shape[-1], 1]
        self.depthwise_kernel = add_float32_weight(self, "depthwise_kernel", shape, "glorot_uniform")
        self.norm.build([None, input_shape[-1]])
        super().build(input_shape)

    def call(self, x, training=False):
        if training:
            kernel = tf.cast(self.depthwise_kernel, x.dtype)
            return self.activate(self.norm(self._convolve(x, kernel), training=True), True)
        kernel, bias = self.inference_weights()
        return self.activate(tf.nn.bias_add(self._convolve(x, kernel), bias))

    def combined_weights(self):
        scale, shift = self.norm.affine()
        return self.depthwise_kernel * scale[:, tf.newaxis], shift

    def _convolve(self, x, kernel):
        return tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")


class SeparableConvNorm(tf.keras.layers.Layer):
    """Depthwise, then 1x1 convolution, each with batch norm and activation: [B, H, W, C] -> [B, H, W, filters]."""

    def __init__(self, filters: int, kernel_size: int, normalization: Normalization, activation=None, name=None):
        super().__init__(name=name)
        self.depthwise = DepthwiseConvNorm(kernel_size, normalization, activation, name="depthwise")
        self.pointwise = ConvNorm(filters, 1, normalization, activation=activation, name="pointwise")

    def call(self, x, training=False):
        return self.pointwise(self.depthwise(x, training=training), training=training)


def linear(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """x [..., C] times kernel [C, D], plus bias [D]: [..., D].

    All leading axes become one: a matrix product of two matrices runs faster than a batch of small ones, and
    TensorFlow fuses the bias into it.
    """
    *leading, channels = shape_of(x)
    y = tf.matmul(tf.reshape(x, [-1, channels]), kernel)
    if bias is not None:
        y = tf.nn.bias_add(y, bias)
    return tf.reshape(y, [*leading, kernel.shape[-1]])


class LinearNorm(FoldingLayer):
    """[B, length, C] -> linear map (no bias) -> batch norm -> activation -> [B, length, filters].

    The kernel is stored as that of a convolution of width one, [1, C, filters].
    """

    def __init__(
        self,
        filters: int,
        normalization: Normalization,
        activation: str | None = None,
        gamma_initializer: str = "ones",
        kernel_initializer="he_normal",
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.filters = filters
        self.kernel_initializer = tf.keras.initializers.get(kernel_initializer)
        self.activate = activation_by_name(activation)
        self.norm = BatchNorm(normalization, gamma_initializer, name="norm")

    def build(self, input_shape):
        self.kernel = add_float32_weight(self, "kernel", [1, input_shape[-1], self.filters], self.kernel_initializer)
        self.norm.build([None, self.filters])
        super().build(input_shape)

    def call(self, x, training=False):
        if training:
            return self.activate(self.norm(linear(x, tf.cast(self._matrix(), x.dtype)), training=True), True)
        return self.activate(linear(x, *self.inference_weights()))

    def combined_weights(self):
        scale, shift = self.norm.affine()
        return self._matrix() * scale, shift

    def _matrix(self):
        # Not kernel[0]: the gradient of a slice copies the whole kernel.
        return tf.reshape(self.kernel, self.kernel.shape[1:])


class Linear(tf.keras.layers.Layer):
    """[..., C] -> linear map with bias -> [..., filters]; starts close to zero.

    Args:
        filters: output channels.
        kernel_rank: the kernel is stored as [1, ..., 1, C, filters] with this rank.
    """

    def __init__(self, filters: int, kernel_rank: int, name: str | None = None):
        super().__init__(name=name)
        self.filters = filters
        self.kernel_rank = kernel_rank

    def build(self, input_shape):
        shape = [1] * (self.kernel_rank - 2) + [input_shape[-1], self.filters]
        self.kernel = self.add_weight("kernel", shape, initializer=tf.keras.initializers.TruncatedNormal(stddev=0.01))
        self.bias = self.add_weight("bias", [self.filters], initializer="zeros")
        super().build(input_shape)

    def call(self, x):
        if x.shape.rank == 4:
            return tf.nn.bias_add(tf.nn.conv2d(x, self.kernel, 1, "VALID"), self.bias)
        return linear(x, tf.reshape(self.kernel, [-1, self.filters]), self.bias)
