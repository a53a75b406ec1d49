"""Layer normalization over channels whose affine part can be absorbed by the linear map that follows it."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.precision import add_float32_weight, as_float32


class LayerNorm(tf.keras.layers.Layer):
    """Whitens the channels (last axis) of each position, then scales and shifts them (Ba et al., 2016).

    Calling the layer does both. A convolution or linear map that follows can take over the second part: x^ being the
    whitened features, K (gamma x^ + beta) + b is one linear map of x^. Then `whiten` does the first part alone, and
    `absorbed_by` computes the weights of that map, which saves two passes over the features.

    Args:
        epsilon: added to the variance.
    """

    def __init__(self, epsilon: float = 1e-6, name: str | None = None):
        super().__init__(name=name)
        self.epsilon = epsilon

    def build(self, input_shape):
        self.gamma = add_float32_weight(self, "gamma", [input_shape[-1]], "ones")
        self.beta = add_float32_weight(self, "beta", [input_shape[-1]], "zeros")
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(self._whitened(x) * self.gamma + self.beta, x.dtype)

    def whiten(self, x: tf.Tensor) -> tf.Tensor:
        """[..., C] -> [..., C] with mean 0 and variance 1 over the channels of each position."""
        return tf.cast(self._whitened(x), x.dtype)

    def _whitened(self, x):
        x = as_float32(x)
        centered = x - tf.reduce_mean(x, -1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centered), -1, keepdims=True)
        return centered * tf.math.rsqrt(variance + self.epsilon)

    def absorbed_by(self, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The weights that do to whitened features what the given ones do to normalized features.

        Args:
            kernel: [..., C, D], float32; leading axes are those of a convolution's window.
            bias: [D], float32.

        Returns:
            (kernel, bias) of the same shapes, float32.
        """
        # beta is the same at every position, so it meets the sum of the kernel over its window. At the border this
        # holds too, if the padding is zeros: beta then counts as part of the padding (see ConvNeXt's downsampling).
        taps = list(range(kernel.shape.rank - 2))
        shift = tf.linalg.matvec(tf.reduce_sum(kernel, taps), self.beta, transpose_a=True)
        return kernel * self.gamma[:, tf.newaxis], bias + shift
