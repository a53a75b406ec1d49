"""How long it takes until the first step: what Python and TensorFlow leave out while a training graph is built."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Turns Python's garbage collector off in this block; where it was off before, it stays off.

    Importing TensorFlow, building a model and tracing a graph make millions of objects that stay. The collector looks
    through all of them again and again and finds nothing to free, which takes a fifth of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def training_graph_passes() -> Iterator[None]:
    """Graphs that run for the first time in this block are not optimized by TensorFlow, unless there is a GPU.

    On a CPU a training graph's steps are not faster for it (benchmarks/train_step.py); kMaX-R50 starts three seconds
    earlier without and takes a tenth more memory. Evaluation's graphs, which run outside, keep all passes: there
    convolutions are fused with what follows.
    """
    # Imported here, since `no_garbage_collection` has to be in force while TensorFlow is imported.
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        yield
        return
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})
