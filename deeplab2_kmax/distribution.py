"""Sums over the processes (workers) that evaluate or count together."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


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
    replicas_here = len(strategy.extended.worker_devices)

    def of_replica(context: tf.distribute.ValueContext) -> tf.Tensor:
        # The strategy sums over replicas. So that a process with several replicas counts once, its first replica brings
        # the values, the others bring zeros.
        is_first = context.replica_id_in_sync_group % replicas_here == 0
        return tf.constant(values if is_first else np.zeros_like(values))

    of_replicas = strategy.experimental_distribute_values_from_function(of_replica)
    return strategy.reduce(tf.distribute.ReduceOp.SUM, of_replicas, axis=None).numpy()
