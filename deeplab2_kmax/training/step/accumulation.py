"""Gradients of a batch from its parts, one after the other, so that memory is that of one part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError


def require_equal_parts(batch_size: int, replicas: int, parts: int) -> None:
    """Raises ConfigError where a batch cannot be cut into `parts` equal micro-batches on each replica."""
    if parts < 1:
        raise ConfigError(f"gradient_accumulation_steps: expected 1 (off) or more, came {parts}")
    if batch_size % (replicas * parts):
        raise ConfigError(
            f"gradient_accumulation_steps: {parts} parts on {replicas} replica(s) need a"
            f" train_dataset_options.batch_size that is a multiple of {replicas * parts}, came {batch_size}"
        )


def micro_batch(batch: Mapping[str, tf.Tensor], index: tf.Tensor, parts: int) -> dict[str, tf.Tensor]:
    """The images `index * B / parts` and following of a batch of [B, ...] tensors: B / parts of them."""

    def part(values: tf.Tensor) -> tf.Tensor:
        images, *rest = values.shape
        return tf.reshape(values, [parts, images // parts, *rest])[index]

    return {name: part(values) for name, values in batch.items()}


class Accumulator:
    """Sums of each replica's own gradients and loss terms; made in the strategy's scope, used in replica context.

    They are variables, not values that a loop hands on, because replicas that wait for each other inside a step (batch
    statistics over all of them) can only be repeated together, from outside.

    Args:
        variables: those that may have a gradient.
        num_terms: the number of loss terms.
    """

    def __init__(self, variables: Sequence[tf.Variable], num_terms: int):
        self._gradients = [_replicas_own(variable.shape, variable.dtype) for variable in variables]
        self._terms = _replicas_own([num_terms], tf.float32)

    def reset(self) -> None:
        for total in (*self._gradients, self._terms):
            total.assign(tf.zeros_like(total))

    def add(self, gradients: Sequence[tf.Tensor | None], terms: tf.Tensor) -> None:
        """Adds to the sums; None for variables without gradient."""
        for total, gradient in zip(self._gradients, gradients):
            if gradient is not None:
                total.assign_add(gradient)
        self._terms.assign_add(terms)

    def sums(self) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The gradients, zeros for variables without, and the terms."""
        return [total.read_value() for total in self._gradients], self._terms.read_value()


def _replicas_own(shape, dtype) -> tf.Variable:
    return tf.Variable(
        tf.zeros(shape, dtype),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
