"""The random numbers of a training step: drop path, sampled pixels.

By default they are TensorFlow's, different in every run. Within `repeatable_draws` they follow from a seed that the
trainer makes of its own and of the step. So a run that was stopped draws what it would have drawn, without any state
of a generator in its checkpoints.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import tensorflow as tf

_THREAD = threading.local()


class _Draws:
    """The seed of a step, and how many draws have been made of it."""

    def __init__(self, seed: tf.Tensor):
        self.seed = seed
        self.count = 0


@contextlib.contextmanager
def repeatable_draws(seed: tf.Tensor) -> Iterator[None]:
    """Within it, draws of this thread follow from `seed`, [2] int64, and their order in the code.

    The same number on all replicas: each takes its own images' part of the draws for all of them, so the draws do not
    depend on how many replicas share the batch.
    """
    before = getattr(_THREAD, "draws", None)
    _THREAD.draws = _Draws(seed)
    try:
        yield
    finally:
        _THREAD.draws = before


def uniform(shape, minval: float = 0.0, maxval: float = 1.0, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Uniform in [minval, maxval); the first entry of `shape` counts this replica's images."""
    draws = getattr(_THREAD, "draws", None)
    if draws is None:
        return tf.random.uniform(shape, minval, maxval, dtype)
    # A draw's number is known when the graph is made; within it, the seed may depend on the step.
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
