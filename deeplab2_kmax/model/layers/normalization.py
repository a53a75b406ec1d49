"""Batch normalization: over all replicas in training, as an affine map that convolutions absorb in inference.

Statistics, parameters and what is computed from them are float32, whatever the precision of the features.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from deeplab2_kmax.model.layers.precision import add_float32_weight, as_float32
from deeplab2_kmax.model.layers.recomputation import first_time
from deeplab2_kmax.model.layers.shapes import shape_of

FUSED_DTYPES = (tf.float32, tf.bfloat16, tf.float16)


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
        if not first_time():
            return
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
        kept = [1] * x.shape.rank
        kept[axis] = x.shape[axis]
        if not training:
            return _scale_and_shift(x, *self.affine(), kept)
        if self._replicas() > 1:
            return self._normalize_across_replicas(x, kept)
        last = axis == x.shape.rank - 1 and x.shape[-1] > 1
        if last and x.dtype in FUSED_DTYPES:
            y, *statistics = _normalize_fused(x, *self._reshaped([-1]), self.settings.epsilon)
        else:
            y, *statistics = _normalize_over(x, *self._reshaped(kept), _averaged(kept), self.settings.epsilon)
        self._update_moving(*self._as_stored(*statistics))
        return y

    def _normalize_across_replicas(self, x, kept: list[int]):
        axes = _averaged(kept)
        wide = as_float32(x)
        moments = self._as_stored(tf.reduce_mean(wide, axes), tf.reduce_mean(tf.square(wide), axes))
        mean, variance = self._across_replicas(*moments)
        self._update_moving(mean, variance)
        return _scale_and_shift(x, *self._affine(mean, variance), kept)

    def _reshaped(self, shape: list[int]) -> tuple[tf.Tensor, tf.Tensor]:
        """(gamma, beta) in this shape."""
        if shape == [-1] and not self.stored_shape:
            return self.gamma, self.beta
        return tf.reshape(self.gamma, shape), tf.reshape(self.beta, shape)

    def _as_stored(self, *statistics: tf.Tensor) -> list[tf.Tensor]:
        shape = self.gamma.shape
        return [x if x.shape == shape else tf.reshape(x, shape) for x in statistics]


def _averaged(kept: list[int]) -> list[int]:
    """The axes that statistics of the shape `kept` average over: those where it has a one."""
    return [axis for axis, size in enumerate(kept) if size == 1]


def _scale_and_shift(x, scale, shift, kept: list[int]) -> tf.Tensor:
    return tf.cast(as_float32(x) * tf.reshape(scale, kept) + tf.reshape(shift, kept), x.dtype)


def _normalize_fused(x, gamma, beta, epsilon: float):
    """Batch normalization of the last axis by TensorFlow's kernels: (y like x, mean [C], variance [C]).

    Two to three times as fast as `_normalize_over`, and an eighth of its operations to trace.
    """
    grid = x if x.shape.rank == 4 else tf.reshape(x, [-1, 1, 1, x.shape[-1]])
    # For float32 the first version: of its statistics TensorFlow's tape makes no gradients of zeros.
    kernel = tf.raw_ops.FusedBatchNorm if x.dtype == tf.float32 else tf.raw_ops.FusedBatchNormV3
    y, mean, variance, *_ = kernel(
        x=grid, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    # The kernel divides the sum of squares by count - 1.
    count = grid.shape[:3].num_elements() or tf.cast(tf.size(grid) // grid.shape[3], variance.dtype)
    return y if x.shape.rank == 4 else tf.reshape(y, shape_of(x)), mean, variance * (1.0 - 1.0 / count)


def _normalize_over(x, gamma, beta, axes: list[int], epsilon: float):
    """Batch normalization of `x` over some axes: (y like x, mean, variance), these two like gamma and beta.

    gamma and beta have ones in the axes averaged over. The variance is E[x^2] - E[x]^2, rounded as DeepLab2 rounds it.
    The gradient is written out because the one derived from the forward pass keeps and reads several times as much
    memory.
    """
    statistics = []

    @tf.custom_gradient
    def normalize(x, gamma, beta):
        wide = as_float32(x)
        mean = tf.reduce_mean(wide, axes, keepdims=True)
        variance = tf.maximum(tf.reduce_mean(tf.square(wide), axes, keepdims=True) - tf.square(mean), 0.0)
        statistics.extend([mean, variance])
        scale = gamma * tf.math.rsqrt(variance + epsilon)
        y = tf.cast(wide * scale + (beta - mean * scale), x.dtype)
        return y, lambda dy: _normalize_gradient(dy, x, gamma, mean, variance, axes, epsilon)

    return normalize(x, gamma, beta), *statistics


def _normalize_gradient(dy, x, gamma, mean, variance, axes: list[int], epsilon: float):
    """dx = scale (dy - mean(dy) - x^ mean(dy x^)), with x^ = (x - mean) / stddev; then those of gamma and beta."""
    dtype = x.dtype
    dy, x = as_float32(dy), as_float32(x)
    inverse_stddev = tf.math.rsqrt(variance + epsilon)
    scale = gamma * inverse_stddev
    mean_dy = tf.reduce_mean(dy, axes, keepdims=True)
    mean_dy_whitened = (tf.reduce_mean(dy * x, axes, keepdims=True) - mean_dy * mean) * inverse_stddev
    along_x = scale * inverse_stddev * mean_dy_whitened
    dx = dy * scale - x * along_x + (mean * along_x - scale * mean_dy)
    count = tf.cast(tf.size(x) // tf.size(gamma), x.dtype)
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
        self.averaged = _averaged(kept)
        self.create_weights([count, *kept])
        self.built = True

    def call(self, tensors, training=False):
        tensors = [as_float32(x) for x in tensors]
        if not training:
            scale, shift = self.affine()
        elif self._replicas() > 1:
            moments = [
                (tf.reduce_mean(x, self.averaged, True), tf.reduce_mean(x * x, self.averaged, True)) for x in tensors
            ]
            mean, variance = self._across_replicas(*(tf.stack(moment) for moment in zip(*moments)))
            self._update_moving(mean, variance)
            scale, shift = self._affine(mean, variance)
        else:
            return self._normalize(tensors)
        return tf.add_n([x * scale[i] for i, x in enumerate(tensors)]) + tf.reduce_sum(shift, 0)

    def _normalize(self, tensors):
        affine = zip(tf.unstack(self.gamma), tf.unstack(self.beta))
        normalized, mean, variance = zip(
            *(_normalize_over(x, *each, self.averaged, self.settings.epsilon) for x, each in zip(tensors, affine))
        )
        self._update_moving(tf.stack(mean), tf.stack(variance))
        return tf.add_n(normalized)
