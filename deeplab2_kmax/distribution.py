"""Sums over the processes that evaluate together."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def is_alone(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process has all replicas of the strategy."""
    replicas = strategy.num_replicas_in_sync
    return replicas == 1 or replicas == len(strategy.extended.worker_devices)


def sum_over_workers(values: np.ndarray) -> np.ndarray:
    """The sum of `values` over the processes of the strategy in scope; all have to ask, for arrays of one shape.

    Args:
        values: float64 or int64, what this process has.

    Returns:
        An array like it, the same in all processes.
    """
    strategy = tf.distribute.get_strategy()
    if is_alone(strategy):
        return values
    replicas_here = len(strategy.extended.worker_devices)

    def of_replica(context: tf.distribute.ValueContext) -> tf.Tensor:
        # A process with several replicas counts once.
        is_first = context.replica_id_in_sync_group % replicas_here == 0
        return tf.constant(values if is_first else np.zeros_like(values))

    of_replicas = strategy.experimental_distribute_values_from_function(of_replica)
    return strategy.reduce(tf.distribute.ReduceOp.SUM, of_replicas, axis=None).numpy()
