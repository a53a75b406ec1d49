"""Which passes of TensorFlow's graph optimizer a training graph goes through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def training_graph_passes() -> Iterator[None]:
    """Graphs that run for the first time in this block are not optimized by TensorFlow, unless there is a GPU.

    On a CPU a training graph's steps are not faster for it (benchmarks/train_step.py); kMaX-R50 starts three seconds
    earlier without and takes a tenth more memory. Evaluation's graphs, which run outside, keep all passes: there
    convolutions are fused with what follows.
    """
    if tf.config.list_logical_devices("GPU"):
        yield
        return
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})
