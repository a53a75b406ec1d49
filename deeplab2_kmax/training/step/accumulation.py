"""Gradient accumulation: the gradients of a large batch from its parts, worked through one after the other.

Memory is then that of one part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.wording import counted

_FIELD = "trainer_options.gradient_accumulation_steps"


def require_equal_parts(batch_size: int, replicas: int, parts: int) -> None:
    """Checks that each replica can cut its share of a batch into equal micro-batches.

    Args:
        batch_size: images in the global batch.
        replicas: how many replicas share the batch.
        parts: micro-batches of each replica.

    Raises:
        ConfigError: it cannot.
    """
    if batch_size % (replicas * parts):
        raise ConfigError(
            f"{_FIELD}: {counted(parts, 'part')} on {counted(replicas, 'replica')} need a"
            f" train_dataset_options.batch_size that is a multiple of {replicas * parts}, got {batch_size}"
        )


def micro_batch(batch: Mapping[str, tf.Tensor], index: tf.Tensor, parts: int) -> dict[str, tf.Tensor]:
    """One of `parts` equal parts of a batch.

    Args:
        batch: tensors of shape [B, ...], B static and a multiple of `parts`.
        index: scalar int32 in 0 .. parts - 1.
        parts: how many parts there are.

    Returns:
        The images `index * B / parts` and following, B / parts of them, under the same names.
    """

    def part(values: tf.Tensor) -> tf.Tensor:
        # Reshaping keeps the shape of a part static, which a slice from a position known only in the graph would not;
        # XLA and the model need static shapes.
        images, *rest = values.shape
        return tf.reshape(values, [parts, images // parts, *rest])[index]

    return {name: part(values) for name, values in batch.items()}


class Accumulator:
    """Sums of each replica's own gradients and loss terms.

    Make it in the strategy's scope and use it in replica context.

    The sums are variables rather than loop variables of a `tf.while_loop`: with batch statistics gathered over all
    replicas, the replicas wait for each other inside a forward pass, so the loop over parts has to be outside of
    `strategy.run`, where a replica's own tensors cannot be carried along.

    Args:
        variables: the variables that may have a gradient.
        num_terms: the number of loss terms.
    """

    def __init__(self, variables: Sequence[tf.Variable], num_terms: int):
        self._gradients = [_variable_per_replica(variable.shape, variable.dtype) for variable in variables]
        self._terms = _variable_per_replica([num_terms], tf.float32)

    def reset(self) -> None:
        """Sets all sums to zero."""
        for total in (*self._gradients, self._terms):
            total.assign(tf.zeros_like(total))

    def add(self, gradients: Sequence[tf.Tensor | None], terms: tf.Tensor) -> None:
        """Adds the gradients of a part, None for variables without one, and its loss terms [num_terms]."""
        for total, gradient in zip(self._gradients, gradients):
            if gradient is not None:
                total.assign_add(gradient)
        self._terms.assign_add(terms)

    def sums(self) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The summed gradients, zeros for variables without one, and the summed loss terms."""
        return [total.read_value() for total in self._gradients], self._terms.read_value()


def _variable_per_replica(shape: Sequence[int] | tf.TensorShape, dtype: tf.DType) -> tf.Variable:
    """A variable of which each replica updates its own copy, without waiting for the others (ON_READ)."""
    return tf.Variable(
        tf.zeros(shape, dtype),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )
