"""Convolutions and linear maps, each followed by batch normalization and an activation in one layer.

In inference the normalization is an affine map of each channel, so it is folded into the kernel (see `folding.py`).
Then only a convolution, a bias and an activation run, which TensorFlow fuses into one operation.

All kernels are float32 weights that the layers cast themselves, because in inference they are combined with the batch
norm first (see `precision.py`). Their shapes and names are those of DeepLab2's checkpoints.
"""

from __future__ import annotations

import itertools
from typing import Any

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation as activation_by_name
from deeplab2_kmax.model.layers.folding import FoldingLayer
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization
from deeplab2_kmax.model.layers.precision import add_float32_weight
from deeplab2_kmax.model.layers.shapes import shape_of


class ConvNorm(FoldingLayer):
    """Convolution (no bias), batch norm, activation: [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), filters].

    Args:
        filters: output channels.
        kernel_size: height and width of the kernel; odd.
        normalization: settings of the batch norm.
        stride, dilation: of the convolution; not both above 1.
        activation: "relu", "gelu" or None.
        gamma_initializer: of the batch norm; "zeros" lets a residual branch that ends here start as zero.
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

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if training:
            return self.activate(self.norm(self._convolve_with_gradient(x), training=True), True)
        kernel, bias = self.inference_weights()
        return self.activate(tf.nn.bias_add(self._convolve(x, kernel), bias))

    def combined_weights(self) -> tuple[tf.Tensor, tf.Tensor]:
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
        # Strided "SAME" would pad even and odd image sizes differently, which shifts features by a pixel. Equal padding
        # on all sides keeps them centered on the same pixels, and is what DeepLab2's checkpoints were trained with.
        side = [(self.kernel_size - 1) // 2] * 2
        return tf.nn.conv2d(x, kernel, self.stride, [[0, 0], side, side, [0, 0]])


def dilated_convolution(x: tf.Tensor, kernel: tf.Tensor, dilation: int) -> tf.Tensor:
    """Dilated convolution with "SAME" padding that has a gradient on every device.

    Args:
        x: [B, H, W, C].
        kernel: [k, k, C, D], with k odd.
        dilation: above 1.

    Returns:
        [B, H, W, D].
    """
    height, width = x.shape[1:3]
    # TensorFlow has no gradient of tf.nn.conv2d for dilated kernels on CPUs. tf.nn.convolution gets around that by
    # space-to-batch: it splits the image into dilation x dilation smaller ones and convolves those without dilation.
    if height is None or width is None or 2 * dilation < min(height, width):
        return tf.nn.convolution(x, kernel, padding="SAME", dilations=dilation)
    # Space-to-batch pads the image to a multiple of the dilation. On small maps, where the dilation is close to the
    # size of the map, it takes a hundred times as long. There many taps of the kernel lie outside the image, so we
    # apply each tap that reaches into the image on its own, as a 1x1 convolution of a shifted part of the image.
    size = kernel.shape[0]
    offsets = [(step - size // 2) * dilation for step in range(size)]
    # Not a slice for each tap: the gradient of a slice is as large as the tensor it was cut from.
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
    """The range [first, end) of positions p + offset inside an axis of `length`, for all p inside it."""
    return max(offset, 0), length + min(offset, 0)


class DepthwiseConvNorm(FoldingLayer):
    """Convolution of each channel with a kernel of its own, batch norm, activation: [B, H, W, C] -> [B, H, W, C].

    Args:
        kernel_size: height and width of the kernel; odd.
        normalization: settings of the batch norm.
        activation: "relu", "gelu" or None.
    """

    def __init__(
        self,
        kernel_size: int,
        normalization: Normalization,
        activation: str | None = None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.kernel_size = kernel_size
        self.activate = activation_by_name(activation)
        self.norm = BatchNorm(normalization, name="norm")

    def build(self, input_shape):
        shape = [self.kernel_size, self.kernel_size, input_shape[-1], 1]
        self.depthwise_kernel = add_float32_weight(self, "depthwise_kernel", shape, "glorot_uniform")
        self.norm.build([None, input_shape[-1]])
        super().build(input_shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if training:
            kernel = tf.cast(self.depthwise_kernel, x.dtype)
            return self.activate(self.norm(self._convolve(x, kernel), training=True), True)
        kernel, bias = self.inference_weights()
        return self.activate(tf.nn.bias_add(self._convolve(x, kernel), bias))

    def combined_weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        scale, shift = self.norm.affine()
        # The kernel is [k, k, C, 1]: its channels are the last axis but one.
        return self.depthwise_kernel * scale[:, tf.newaxis], shift

    def _convolve(self, x, kernel):
        return tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")


class SeparableConvNorm(tf.keras.layers.Layer):
    """Depthwise, then 1x1 convolution, each with batch norm and activation: [B, H, W, C] -> [B, H, W, filters].

    Args:
        filters: output channels.
        kernel_size: of the depthwise convolution.
        normalization: settings of the batch norms.
        activation: "relu", "gelu" or None, after each of the two.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        normalization: Normalization,
        activation: str | None = None,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.depthwise = DepthwiseConvNorm(kernel_size, normalization, activation, name="depthwise")
        self.pointwise = ConvNorm(filters, 1, normalization, activation=activation, name="pointwise")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.pointwise(self.depthwise(x, training=training), training=training)


def linear(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """Linear map of the last axis.

    Args:
        x: [..., C].
        kernel: [C, D].
        bias: [D], or None.

    Returns:
        [..., D].
    """
    # With all leading axes merged into one, a single product of two matrices runs. It is faster than a batch of small
    # products, and TensorFlow fuses the bias into it.
    *leading, channels = shape_of(x)
    y = tf.matmul(tf.reshape(x, [-1, channels]), kernel)
    if bias is not None:
        y = tf.nn.bias_add(y, bias)
    return tf.reshape(y, [*leading, kernel.shape[-1]])


class LinearNorm(FoldingLayer):
    """Linear map (no bias), batch norm, activation: [B, length, C] -> [B, length, filters].

    The kernel is stored as DeepLab2 stores it, in the shape of a one-dimensional convolution of width one,
    [1, C, filters].

    Args:
        filters: output channels.
        normalization: settings of the batch norm.
        activation: "relu", "gelu" or None.
        gamma_initializer: of the batch norm; "zeros" lets a residual branch that ends here start as zero.
        kernel_initializer: of the kernel; a Keras initializer or its name.
    """

    def __init__(
        self,
        filters: int,
        normalization: Normalization,
        activation: str | None = None,
        gamma_initializer: str = "ones",
        kernel_initializer: Any = "he_normal",
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

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        if training:
            return self.activate(self.norm(linear(x, tf.cast(self._matrix(), x.dtype)), training=True), True)
        return self.activate(linear(x, *self.inference_weights()))

    def combined_weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        scale, shift = self.norm.affine()
        return self._matrix() * scale, shift

    def _matrix(self):
        # A reshape costs nothing in either direction; the gradient of the slice kernel[0] would copy the whole kernel.
        return tf.reshape(self.kernel, self.kernel.shape[1:])


class Linear(tf.keras.layers.Layer):
    """Linear map with bias, the last layer of a head: [..., C] -> [..., filters]. A new one returns values near zero.

    Args:
        filters: output channels.
        kernel_rank: the kernel is stored as [1, ..., 1, C, filters] with this rank, as DeepLab2 stores it.
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

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if x.shape.rank == 4:
            return tf.nn.bias_add(tf.nn.conv2d(x, self.kernel, 1, "VALID"), self.bias)
        return linear(x, tf.reshape(self.kernel, [-1, self.filters]), self.bias)
