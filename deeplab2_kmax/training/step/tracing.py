"""Starting sooner: work that Python and TensorFlow can do without while a training graph is built."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Turns Python's garbage collector off in this block; if it was off before, it stays off afterwards.

    Importing TensorFlow, building a model and tracing a graph create millions of objects that stay alive. The collector
    looks through all of them again and again and finds nothing to free, which takes a fifth of the time.
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
    """Turns TensorFlow's graph optimizer off for graphs that run for the first time in this block; not with a GPU.

    On a CPU it makes training steps no faster (benchmarks/train_step.py). Without it kMaX-R50 starts three seconds
    earlier and takes a tenth more memory. Graphs of an evaluation run outside of this block and keep all optimizations:
    there, fusing convolutions with what follows them pays.
    """
    # Imported here, because `no_garbage_collection` has to be in force while TensorFlow is imported.
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
