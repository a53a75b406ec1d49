"""Batch normalization: over all replicas in training, as an affine map that convolutions absorb in inference."""

from __future__ import annotations

import dataclasses

import tensorflow as tf


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
        super().__init__(name=name)
        self.settings = settings
        self.gamma_initializer = tf.keras.initializers.get(gamma_initializer)

    def create_weights(self, shape: list[int]) -> None:
        self.gamma = self.add_weight("gamma", shape, initializer=self.gamma_initializer)
        self.beta = self.add_weight("beta", shape, initializer="zeros")
        self.moving_mean = self._add_moving("moving_mean", shape, "zeros")
        self.moving_variance = self._add_moving("moving_variance", shape, "ones")

    def _add_moving(self, name: str, shape: list[int], initializer: str) -> tf.Variable:
        return self.add_weight(
            name,
            shape,
            initializer=initializer,
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
    """Normalizes each channel (last axis) of a tensor of any rank.

    Args:
        settings: momentum, epsilon, synchronization.
        gamma_initializer: "zeros" makes a residual branch start as nothing.
        shape: shape in which the statistics are stored, where it is not [channels]; its product is the channels.
    """

    def __init__(self, settings, gamma_initializer="ones", shape: list[int] | None = None, name: str | None = None):
        super().__init__(settings, gamma_initializer, name)
        self.stored_shape = shape

    def build(self, input_shape):
        self.create_weights(self.stored_shape or [input_shape[-1]])
        super().build(input_shape)

    def call(self, x, training=False):
        if not training:
            scale, shift = self.affine()
            return x * tf.reshape(scale, [-1]) + tf.reshape(shift, [-1])
        if self._replicas() > 1:
            return self._normalize_across_replicas(x)
        return self._normalize_fused(x)

    def _normalize_fused(self, x):
        channels = x.shape[-1]
        rows = tf.reshape(x, [-1, 1, 1, channels])
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            rows,
            tf.reshape(self.gamma, [-1]),
            tf.reshape(self.beta, [-1]),
            epsilon=self.settings.epsilon,
            is_training=True,
        )
        # The kernel returns the unbiased variance; the moving variance is that of the batch itself.
        count = tf.cast(tf.shape(rows)[0], variance.dtype)
        stored = tf.shape(self.gamma)
        self._update_moving(tf.reshape(mean, stored), tf.reshape(variance * ((count - 1.0) / count), stored))
        return tf.reshape(y, tf.shape(x))

    def _normalize_across_replicas(self, x):
        axes = list(range(x.shape.rank - 1))
        stored = tf.shape(self.gamma)
        mean, variance = self._across_replicas(
            tf.reshape(tf.reduce_mean(x, axes), stored), tf.reshape(tf.reduce_mean(tf.square(x), axes), stored)
        )
        self._update_moving(mean, variance)
        scale, shift = self._affine(mean, variance)
        return x * tf.reshape(scale, [-1]) + tf.reshape(shift, [-1])


class SummedBatchNorm(_MovingStatistics):
    """Normalizes several tensors of one shape, each with its own statistics, and adds them up.

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
        if training:
            moments = [(tf.reduce_mean(x, self.averaged, True), tf.reduce_mean(x * x, self.averaged, True)) for x in tensors]
            mean, variance = self._across_replicas(*(tf.stack(moment) for moment in zip(*moments)))
            self._update_moving(mean, variance)
            scale, shift = self._affine(mean, variance)
        else:
            scale, shift = self.affine()
        return tf.add_n([x * scale[i] for i, x in enumerate(tensors)]) + tf.reduce_sum(shift, 0)
