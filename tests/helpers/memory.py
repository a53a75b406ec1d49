"""Gives memory back between test files, which else adds up over a worker's life."""

import ctypes
import gc
import sys


def give_back_memory(kept_gradients):
    """Frees what TensorFlow and the C library keep of graphs that nobody uses any more.

    In a graph, `tf.custom_gradient` files its gradient function in a table of TensorFlow's, for good, and with it the
    whole graph that the function belongs to. And glibc keeps the room that freed graphs leave between others.

    Args:
        kept_gradients: the names in that table that stay, from `filed_gradients`.
    """
    for name in filed_gradients() - kept_gradients:
        del _table()[name]
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # Of glibc only.
        if trim is not None:
            trim(0)


def filed_gradients():
    """The names under which gradient functions of `tf.custom_gradient` are filed now."""
    return {name for name in _table() if name.startswith("CustomGradient-")}


def _table():
    # Many tests need no TensorFlow, and should not load it for this.
    ops = sys.modules.get("tensorflow.python.framework.ops")
    return ops.gradient_registry._registry if ops else {}
