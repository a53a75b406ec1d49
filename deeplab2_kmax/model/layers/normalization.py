"""Batch normalization: over all replicas in training, as an affine map that convolutions absorb in inference.

Statistics, parameters and what is computed from them are float32, whatever the precision of the features.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from deeplab2_kmax.model.layers.precision import add_float32_weight, as_float32


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Settings every batch normalization of a model shares.

    Attributes:
        momentum: share of the old moving statistics kept at each step.
        epsilon: added to variances.
        synchronized: whether batch statistics are taken over all replicas.
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    synchronized: bool = True


class _MovingStatistics(tf.keras.layers.Layer):
    """gamma, beta and the moving mean and variance of some normalization, all of one shape."""

    def __init__(self, settings: Normalization, gamma_initializer="ones", name: str | None = None):
        super().__init__(name=name, autocast=False)
        self.settings = settings
        self.gamma_initializer = tf.keras.initializers.get(gamma_initializer)

    def create_weights(self, shape: list[int]) -> None:
        self.gamma = add_float32_weight(self, "gamma", shape, self.gamma_initializer)
        self.beta = add_float32_weight(self, "beta", shape, "zeros")
        self.moving_mean = self._add_moving("moving_mean", shape, "zeros")
        self.moving_variance = self._add_moving("moving_variance", shape, "ones")

    def _add_moving(self, name: str, shape: list[int], initializer: str) -> tf.Variable:
        return add_float32_weight(
            self,
            name,
            shape,
            initializer,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
        )

    def affine(self) -> tuple[tf.Tensor, tf.Tensor]:
        """(scale, shift) such that inference computes `x * scale + shift`."""
        return self._affine(self.moving_mean, self.moving_variance)

    def _affine(self, mean: tf.Tensor, variance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scale = self.gamma * tf.math.rsqrt(variance + self.settings.epsilon)
        return scale, self.beta - mean * scale

    def _update_moving(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        rate = 1.0 - self.settings.momentum
        self.moving_mean.assign_sub((self.moving_mean - mean) * rate)
        self.moving_variance.assign_sub((self.moving_variance - variance) * rate)

    def _across_replicas(self, mean: tf.Tensor, mean_square: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(mean, variance) over all replicas from each replica's mean and mean of squares."""
        if self._replicas() > 1:
            context = tf.distribute.get_replica_context()
            mean, mean_square = tf.unstack(
                context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.stack([mean, mean_square]))
            )
        return mean, tf.maximum(mean_square - tf.square(mean), 0.0)

    def _replicas(self) -> int:
        """Over how many replicas statistics have to be gathered here."""
        context = tf.distribute.get_replica_context()
        return context.num_replicas_in_sync if context and self.settings.synchronized else 1


class BatchNorm(_MovingStatistics):
    """Normalizes each channel of a tensor of any rank; the result has the tensor's type.

    Args:
        settings: momentum, epsilon, synchronization.
        gamma_initializer: "zeros" makes a residual branch start as nothing.
        shape: shape in which the statistics are stored, where it is not [channels]; its product is the channels.
        axis: of the channels; the last, or for instance 1 where those are the heads of an attention map.
    """

    def __init__(
        self,
        settings: Normalization,
        gamma_initializer="ones",
        shape: list[int] | None = None,
        axis: int = -1,
        name: str | None = None,
    ):
        super().__init__(settings, gamma_initializer, name)
        self.stored_shape = shape
        self.axis = axis

    def build(self, input_shape):
        self.create_weights(self.stored_shape or [input_shape[self.axis]])
        super().build(input_shape)

    def call(self, x, training=False):
        axis = self.axis % x.shape.rank
        if not training:
            return _scale_and_shift(x, *self.affine(), axis)
        if self._replicas() > 1:
            return self._normalize_across_replicas(x, axis)
        gamma, beta = self.gamma, self.beta
        if self.stored_shape:
            gamma, beta = tf.reshape(gamma, [-1]), tf.reshape(beta, [-1])
        y, mean, variance = _normalize_batch(x, gamma, beta, axis, self.settings.epsilon)
        if self.stored_shape:
            mean, variance = tf.reshape(mean, self.stored_shape), tf.reshape(variance, self.stored_shape)
        self._update_moving(mean, variance)
        return y

    def _normalize_across_replicas(self, x, axis: int):
        axes = _other_axes(axis, x)
        stored = tf.shape(self.gamma)
        wide = as_float32(x)
        mean, variance = self._across_replicas(
            tf.reshape(tf.reduce_mean(wide, axes), stored), tf.reshape(tf.reduce_mean(tf.square(wide), axes), stored)
        )
        self._update_moving(mean, variance)
        return _scale_and_shift(x, *self._affine(mean, variance), axis)


def _other_axes(axis: int, x: tf.Tensor) -> list[int]:
    return [other for other in range(x.shape.rank) if other != axis]


def _along(axis: int, values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """`values`, one a channel and of any shape, in the shape that broadcasts along `axis` of `x`."""
    return tf.reshape(values, [-1] + [1] * (x.shape.rank - 1 - axis))


def _scale_and_shift(x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor, axis: int) -> tf.Tensor:
    return tf.cast(as_float32(x) * _along(axis, scale, x) + _along(axis, shift, x), x.dtype)


def _normalize_batch(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, axis: int, epsilon: float):
    """Batch normalization of `x` along `axis` with gamma, beta [C]: (y like x, mean [C], variance [C]).

    The variance is E[x^2] - E[x]^2, rounded as DeepLab2 rounds it: k-means decides by argmax, so a more accurate
    formula (TensorFlow's fused kernel) can send a pixel to another cluster and training another way. The gradient is
    written out because the one derived from the forward pass keeps and reads several times as much memory.
    """

    @tf.custom_gradient
    def normalize(x, gamma, beta):
        y, mean, variance = _normalize(x, gamma, beta, axis, epsilon)
        return (y, mean, variance), lambda dy, *_: _normalize_gradient(dy, x, gamma, mean, variance, axis, epsilon)

    return normalize(x, gamma, beta)


def _normalize(x, gamma, beta, axis: int, epsilon: float):
    axes = _other_axes(axis, x)
    wide = as_float32(x)
    mean = tf.reduce_mean(wide, axes)
    variance = tf.maximum(tf.reduce_mean(tf.square(wide), axes) - tf.square(mean), 0.0)
    scale = gamma * tf.math.rsqrt(variance + epsilon)
    return _scale_and_shift(x, scale, beta - mean * scale, axis), mean, variance


def _normalize_gradient(dy, x, gamma, mean, variance, axis: int, epsilon: float):
    """dx = scale (dy - mean(dy) - x^ mean(dy x^)), with x^ = (x - mean) / stddev; then those of gamma and beta."""
    axes = _other_axes(axis, x)
    dtype = x.dtype
    dy, x = as_float32(dy), as_float32(x)
    inverse_stddev = tf.math.rsqrt(variance + epsilon)
    scale = gamma * inverse_stddev
    mean_dy = tf.reduce_mean(dy, axes)
    mean_dy_whitened = (tf.reduce_mean(dy * x, axes) - mean_dy * mean) * inverse_stddev
    along_x = scale * inverse_stddev * mean_dy_whitened
    constant = mean * along_x - scale * mean_dy
    dx = dy * _along(axis, scale, x) - x * _along(axis, along_x, x) + _along(axis, constant, x)
    count = tf.cast(tf.size(x) // tf.size(gamma), tf.float32)
    return tf.cast(dx, dtype), mean_dy_whitened * count, mean_dy * count


class SummedBatchNorm(_MovingStatistics):
    """Normalizes several tensors of one shape, each with its own statistics, and adds them up, in float32.

    Attention sums several similarities (or several retrieved values); each is normalized so that none drowns the
    others. Statistics are stored as [number of tensors, *kept], with ones for the axes averaged over.

    Args:
        settings: momentum, epsilon, synchronization.
        kept: shape of one tensor's statistics, e.g. [1, heads, 1, 1].
    """

    def __init__(self, settings: Normalization, count: int, kept: list[int], name: str | None = None):
        super().__init__(settings, name=name)
        self.averaged = [axis for axis, size in enumerate(kept) if size == 1]
        self.create_weights([count, *kept])
        self.built = True

    def call(self, tensors, training=False):
        tensors = [as_float32(x) for x in tensors]
        if training:
            moments = [
                (tf.reduce_mean(x, self.averaged, True), tf.reduce_mean(x * x, self.averaged, True)) for x in tensors
            ]
            mean, variance = self._across_replicas(*(tf.stack(moment) for moment in zip(*moments)))
            self._update_moving(mean, variance)
            scale, shift = self._affine(mean, variance)
        else:
            scale, shift = self.affine()
        return tf.add_n([x * scale[i] for i, x in enumerate(tensors)]) + tf.reduce_sum(shift, 0)
