"""Sums and collections over the processes (workers) that evaluate or count together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

# The bytes of a number in `gather_from_workers`.
_WORD = 8


def is_alone(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process has all replicas of the strategy, so that there are no other workers."""
    replicas = strategy.num_replicas_in_sync
    return replicas == 1 or replicas == len(strategy.extended.worker_devices)


def sum_over_workers(values: np.ndarray) -> np.ndarray:
    """The sum of an array over the processes of the distribution strategy in scope.

    All processes have to call this at the same point, with arrays of one shape and dtype: the sum waits for each.

    Args:
        values: float64 or int64, the array of this process. (Counts of pixels would overflow in int32.)

    Returns:
        An array of the same shape and dtype, the same in all processes.
    """
    strategy = tf.distribute.get_strategy()
    if is_alone(strategy):
        return values
    return _sum(strategy, lambda worker: values)


def gather_from_workers(content: bytes) -> list[bytes]:
    """What each process of the distribution strategy in scope gives, in all of them and in the same order.

    All processes have to call this at the same point.

    Args:
        content: of this process, of any length.
    """
    strategy = tf.distribute.get_strategy()
    if is_alone(strategy):
        return [content]
    workers = strategy.num_replicas_in_sync // len(strategy.extended.worker_devices)
    words = -(-len(content) // _WORD)

    def length(worker: int) -> np.ndarray:
        lengths = np.zeros(workers, np.int64)
        lengths[worker] = len(content)
        return lengths

    lengths = _sum(strategy, length)
    longest = -(-int(lengths.max()) // _WORD)

    # Sums are what all strategies have. As each worker fills a row of its own, nothing is added to it but zeros.
    def row(worker: int) -> np.ndarray:
        rows = np.zeros((workers, longest), np.int64)
        rows[worker, :words] = np.frombuffer(content.ljust(words * _WORD, b"\0"), np.int64)
        return rows

    rows = _sum(strategy, row)
    return [rows[worker].tobytes()[:count] for worker, count in enumerate(lengths.tolist())]


def _sum(strategy: tf.distribute.Strategy, values_of: Callable[[int], np.ndarray]) -> np.ndarray:
    """The sum over processes of what `values_of` makes of the number of this one, 0 for the first."""
    replicas_here = len(strategy.extended.worker_devices)

    def of_replica(context: tf.distribute.ValueContext) -> tf.Tensor:
        # The strategy sums over replicas. So that a process with several replicas counts once, its first replica brings
        # the values, the others bring zeros.
        worker, number = divmod(context.replica_id_in_sync_group, replicas_here)
        values = values_of(worker)
        return tf.constant(values if number == 0 else np.zeros_like(values))

    of_replicas = strategy.experimental_distribute_values_from_function(of_replica)
    return strategy.reduce(tf.distribute.ReduceOp.SUM, of_replicas, axis=None).numpy()
