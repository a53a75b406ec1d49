"""Which passes of TensorFlow's graph optimizer a training graph goes through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

# Passes that find next to nothing to do in a training graph on a CPU: oneDNN chooses its layouts by itself, what could
# be fused are eight convolutions with biases, what could be folded a few constants. Steps are not faster for it.
_IDLE_ON_CPU = {"layout_optimizer": False, "remapping": False, "constant_folding": False}


@contextlib.contextmanager
def training_graph_passes() -> Iterator[None]:
    """Graphs that run for the first time in this block are optimized as suits training; others, such as evaluation's,
    keep all passes. Nothing changes where there is a GPU."""
    before = tf.config.optimizer.get_experimental_options()
    if tf.config.list_logical_devices("GPU"):
        yield
        return
    tf.config.optimizer.set_experimental_options(_IDLE_ON_CPU)
    try:
        yield
    finally:
        # Options that were not set before were on.
        tf.config.optimizer.set_experimental_options({**dict.fromkeys(_IDLE_ON_CPU, True), **before})
