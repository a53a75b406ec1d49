"""Batch normalization: over all replicas in training, an affine map that convolutions absorb in inference.

Keras has a batch norm of its own. This one exists because it gives its affine map away (`affine`), normalizes any axis,
stores its statistics in the shapes of DeepLab2's checkpoints, takes part in recomputation, and is faster in training.

In training it takes one of three ways, which give the same results up to rounding:

- with more than one synchronized replica, a mean of means over the replicas;
- else TensorFlow's fused kernels, where the channels are the last axis and XLA does not compile the step;
- else a formula with its gradient written out (`_normalize_over`).

Statistics, weights and all that is computed from them are float32, whatever the precision of the features.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from deeplab2_kmax.model.layers.precision import add_float32_weight, as_float32
from deeplab2_kmax.model.layers.recomputation import first_time
from deeplab2_kmax.model.layers.shapes import shape_of
from deeplab2_kmax.protos import trainer_pb2

# Types of features for which the fused kernels are used. Tests empty it to take the formula, which rounds as DeepLab2.
FUSED_DTYPES = (tf.float32, tf.bfloat16, tf.float16)


_tracing = threading.local()


def xla_compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A tf.function of `function` that XLA compiles, within which batch norms take their formula.

    XLA has no fused kernels on CPUs and TPUs: it makes E[x^2] - E[x]^2 of them, which rounding turns negative where the
    mean is large beside the deviation (300 and 0.01), and outputs and statistics NaN. The formula keeps it at 0.
    """

    def traced(*arguments: Any) -> Any:
        before, _tracing.for_xla = _is_for_xla(), True
        try:
            return function(*arguments)
        finally:
            _tracing.for_xla = before

    return tf.function(traced, jit_compile=True, autograph=False)


def _is_for_xla() -> bool:
    """Whether XLA compiles what is traced now, as it always does on TPUs."""
    on_tpu = isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)
    return on_tpu or getattr(_tracing, "for_xla", False)


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Settings that all batch norms of a model share.

    Attributes:
        momentum: share of the old moving statistics kept at each step.
        epsilon: added to variances.
        synchronized: whether batch statistics are taken over all replicas.
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    synchronized: bool = True

    @classmethod
    def from_options(cls, options: trainer_pb2.SolverOptions) -> Normalization:
        """Reads the settings from the config's `trainer_options.solver_options`."""
        return cls(options.batchnorm_momentum, options.batchnorm_epsilon, options.use_sync_batchnorm)


class _MovingStatistics(tf.keras.layers.Layer):
    """gamma, beta and the moving mean and variance of a normalization, all of one shape.

    Args:
        settings: momentum, epsilon, synchronization.
        gamma_initializer: a Keras initializer or its name.
    """

    def __init__(self, settings: Normalization, gamma_initializer: Any = "ones", name: str | None = None):
        super().__init__(name=name, autocast=False)
        self.settings = settings
        self.gamma_initializer = tf.keras.initializers.get(gamma_initializer)

    def create_weights(self, shape: Sequence[int]) -> None:
        """Creates the four weights, each of `shape`."""
        self.gamma = add_float32_weight(self, "gamma", shape, self.gamma_initializer)
        self.beta = add_float32_weight(self, "beta", shape, "zeros")
        self.moving_mean = self._add_moving("moving_mean", shape, "zeros")
        self.moving_variance = self._add_moving("moving_variance", shape, "ones")

    def _add_moving(self, name: str, shape: Sequence[int], initializer: str) -> tf.Variable:
        # Each replica keeps a copy of its own; they are averaged when they are read, for example for a checkpoint.
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
        """(scale, shift), float32 in the shape of the weights: inference computes `x * scale + shift`."""
        return self._affine(self.moving_mean, self.moving_variance)

    def _affine(self, mean: tf.Tensor, variance: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scale = self.gamma * tf.math.rsqrt(variance + self.settings.epsilon)
        return scale, self.beta - mean * scale

    def _update_moving(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        # A block that is recomputed in the backward pass sees the same batch twice, which must count once.
        if not first_time():
            return
        rate = 1.0 - self.settings.momentum
        self.moving_mean.assign_sub((self.moving_mean - mean) * rate)
        self.moving_variance.assign_sub((self.moving_variance - variance) * rate)

    def _across_replicas(self, mean: tf.Tensor, mean_square: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(mean, variance) over all replicas from each replica's mean and mean of squares."""
        if self._replicas() > 1:
            context = tf.distribute.get_replica_context()
            # One message between replicas, not two.
            mean, mean_square = tf.unstack(
                context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.stack([mean, mean_square]))
            )
        # Rounding can make the difference negative where the variance is almost zero.
        return mean, tf.maximum(mean_square - tf.square(mean), 0.0)

    def _replicas(self) -> int:
        """Over how many replicas the statistics have to be taken."""
        context = tf.distribute.get_replica_context()
        return context.num_replicas_in_sync if context and self.settings.synchronized else 1


class BatchNorm(_MovingStatistics):
    """Normalizes each channel of a tensor of any rank; the result has the tensor's shape and type.

    Args:
        settings: momentum, epsilon, synchronization.
        gamma_initializer: a Keras initializer or its name; "zeros" lets a residual branch that ends here start as zero.
        shape: shape in which the weights are stored; None: [channels]. It has as many elements as there are channels.
        axis: of the channels: -1, or for example 1 for an attention map, whose channels are its heads.
    """

    def __init__(
        self,
        settings: Normalization,
        gamma_initializer: Any = "ones",
        shape: Sequence[int] | None = None,
        axis: int = -1,
        name: str | None = None,
    ):
        super().__init__(settings, gamma_initializer, name)
        self.stored_shape = shape
        self.axis = axis

    def build(self, input_shape):
        self.create_weights(self.stored_shape or [input_shape[self.axis]])
        super().build(input_shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        axis = self.axis % x.shape.rank
        kept = [1] * x.shape.rank
        kept[axis] = x.shape[axis]
        if not training:
            return _scale_and_shift(x, *self.affine(), kept)
        if self._replicas() > 1:
            return self._normalize_across_replicas(x, kept)
        # A single channel (the norm of the mask logits) goes to the formula: the fused kernels are made for many.
        last = axis == x.shape.rank - 1 and x.shape[-1] > 1
        if last and x.dtype in FUSED_DTYPES and not _is_for_xla():
            y, *statistics = _normalize_fused(x, *self._reshaped([-1]), self.settings.epsilon)
        else:
            y, *statistics = _normalize_over(x, *self._reshaped(kept), _averaged(kept), self.settings.epsilon)
        self._update_moving(*self._as_stored(*statistics))
        return y

    def _normalize_across_replicas(self, x: tf.Tensor, kept: list[int]) -> tf.Tensor:
        axes = _averaged(kept)
        wide = as_float32(x)
        moments = self._as_stored(tf.reduce_mean(wide, axes), tf.reduce_mean(tf.square(wide), axes))
        mean, variance = self._across_replicas(*moments)
        self._update_moving(mean, variance)
        return _scale_and_shift(x, *self._affine(mean, variance), kept)

    def _reshaped(self, shape: list[int]) -> tuple[tf.Tensor, tf.Tensor]:
        """(gamma, beta) in `shape`."""
        # Two operations fewer to trace, in each of hundreds of layers.
        if shape == [-1] and not self.stored_shape:
            return self.gamma, self.beta
        return tf.reshape(self.gamma, shape), tf.reshape(self.beta, shape)

    def _as_stored(self, *statistics: tf.Tensor) -> list[tf.Tensor]:
        """The statistics in the shape of the weights."""
        shape = self.gamma.shape
        return [x if x.shape == shape else tf.reshape(x, shape) for x in statistics]


def _averaged(kept: list[int]) -> list[int]:
    """The axes that statistics of the shape `kept` average over: those of size one."""
    return [axis for axis, size in enumerate(kept) if size == 1]


def _scale_and_shift(x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor, kept: list[int]) -> tf.Tensor:
    return tf.cast(as_float32(x) * tf.reshape(scale, kept) + tf.reshape(shift, kept), x.dtype)


def _normalize_fused(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Batch normalization of the last axis by TensorFlow's fused kernels.

    They are two to three times as fast as `_normalize_over`, and take an eighth of its operations to trace.

    Args:
        x: [..., C] of any rank.
        gamma, beta: [C], float32.
        epsilon: added to the variance.

    Returns:
        (y like x, mean [C], variance [C]).
    """
    grid = x if x.shape.rank == 4 else tf.reshape(x, [-1, 1, 1, x.shape[-1]])
    # Version 3 is needed for other types. For float32 the first version is better: TensorFlow's tape knows that it
    # needs no gradients of the statistics, while for version 3 it makes tensors of zeros for them.
    kernel = tf.raw_ops.FusedBatchNorm if x.dtype == tf.float32 else tf.raw_ops.FusedBatchNormV3
    y, mean, variance, *_ = kernel(
        x=grid, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    # The kernel normalizes by the variance of the batch, but returns it multiplied by count / (count - 1). Our moving
    # statistics follow the variance of the batch itself, as DeepLab2's do.
    count = grid.shape[:3].num_elements() or tf.cast(tf.size(grid) // grid.shape[3], variance.dtype)
    # Of a single value, the kernel for GPUs returns NaN; its variance is 0.
    variance = tf.math.multiply_no_nan(variance, 1.0 - 1.0 / count)
    return y if x.shape.rank == 4 else tf.reshape(y, shape_of(x)), mean, variance


def _normalize_over(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, axes: list[int], epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Batch normalization of `x` over some axes, by its formula.

    Args:
        x: of any shape.
        gamma, beta: of the rank of `x`, with size one in the axes averaged over.
        axes: the axes averaged over.
        epsilon: added to the variance.

    Returns:
        (y like x, mean, variance); mean and variance have the shape of gamma.
    """
    # The statistics get out through this list, past the custom gradient: no gradient flows through them.
    statistics: list[tf.Tensor] = []

    # The gradient is written out because automatic differentiation keeps and reads several times as much memory.
    @tf.custom_gradient
    def normalize(x, gamma, beta):
        # E[x^2] - E[x]^2 because DeepLab2 computes and rounds the variance this way.
        wide = as_float32(x)
        mean = tf.reduce_mean(wide, axes, keepdims=True)
        variance = tf.maximum(tf.reduce_mean(tf.square(wide), axes, keepdims=True) - tf.square(mean), 0.0)
        statistics.extend([mean, variance])
        scale = gamma * tf.math.rsqrt(variance + epsilon)
        y = tf.cast(wide * scale + (beta - mean * scale), x.dtype)
        return y, lambda dy: _normalize_gradient(dy, x, gamma, mean, variance, axes, epsilon)

    y = normalize(x, gamma, beta)
    mean, variance = statistics
    return y, mean, variance


def _normalize_gradient(
    dy: tf.Tensor,
    x: tf.Tensor,
    gamma: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    axes: list[int],
    epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradients of batch normalization with respect to x, gamma and beta.

    With x^ = (x - mean) / stddev and scale = gamma / stddev:

        dx     = scale (dy - mean(dy) - x^ mean(dy x^))
        dgamma = sum(dy x^)
        dbeta  = sum(dy)
    """
    # The formulas are rearranged so that neither x - mean nor x^ is ever made, tensors as large as x: means over dy and
    # dy * x and factors per channel stand in for them.
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

    Axial attention sums several similarities, and several retrieved values. Each is normalized by itself so that none
    outweighs the others.

    Args:
        settings: momentum, epsilon, synchronization.
        count: number of tensors.
        kept: shape of one tensor's statistics, with size one in the axes averaged over, e.g. [1, heads, 1, 1]. The
            weights are stored as [count, *kept].
    """

    def __init__(self, settings: Normalization, count: int, kept: list[int], name: str | None = None):
        super().__init__(settings, name=name)
        self.averaged = _averaged(kept)
        self.create_weights([count, *kept])
        self.built = True

    def call(self, tensors: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
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
