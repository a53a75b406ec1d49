"""The random numbers of a training step: drop path, dropout, sampled pixels.

By default they are TensorFlow's, different in every run. Within `repeatable_draws` they follow from a seed, which the
trainer makes from its own seed and the number of the step. So a run that was stopped and continued draws the same
numbers as one that was not stopped, and its checkpoints need not hold the state of a random generator.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

import tensorflow as tf

# Replicas are traced in threads of their own, so each thread counts its own draws.
_THREAD = threading.local()


class _Draws:
    """The seed of a step, and how many draws have been made from it.

    Args:
        seed: [2] int64.
    """

    def __init__(self, seed: tf.Tensor):
        self.seed = seed
        self.count = 0


@contextlib.contextmanager
def repeatable_draws(seed: tf.Tensor) -> Iterator[None]:
    """Within the block, the draws of this thread follow from `seed` and from their order in the code.

    Args:
        seed: [2] int64, the same on all replicas. Each replica draws for the images of all replicas and takes the part
            of its own images, so that the draws do not depend on how many replicas share the batch.
    """
    before = getattr(_THREAD, "draws", None)
    _THREAD.draws = _Draws(seed)
    try:
        yield
    finally:
        _THREAD.draws = before


def uniform(
    shape: Sequence[int | tf.Tensor], minval: float = 0.0, maxval: float = 1.0, dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """Draws uniformly distributed numbers in [minval, maxval).

    Args:
        shape: of the result; its first entry is the number of this replica's images.
        minval, maxval: the range.
        dtype: type of the result.

    Returns:
        A tensor of `shape` and `dtype`.
    """
    draws = getattr(_THREAD, "draws", None)
    if draws is None:
        return tf.random.uniform(shape, minval, maxval, dtype)
    # The number of a draw is a Python integer, fixed when the graph is traced; the seed of the step is a tensor. The
    # algorithm is named because "auto" would choose by device, and runs on CPU and GPU would differ.
    seed = tf.random.experimental.stateless_fold_in(draws.seed, draws.count, alg="philox")
    draws.count += 1
    replica = tf.distribute.get_replica_context()
    replicas = replica.num_replicas_in_sync if replica else 1
    images = shape[0]
    drawn = tf.random.stateless_uniform([replicas * images, *shape[1:]], seed, minval, maxval, dtype, alg="philox")
    if replicas == 1:
        return drawn
    return tf.slice(
        drawn, [replica.replica_id_in_sync_group * images, *[0] * (len(shape) - 1)], [images, *[-1] * (len(shape) - 1)]
    )
