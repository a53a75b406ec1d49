"""Recomputation: a block keeps its inputs for the backward pass and computes what lies inside once more.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016. The second computation is the first one again: it
keeps or drops the same residual branches, and moving statistics are not updated a second time. With synchronized batch
norms it gathers their statistics from all replicas again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator

import tensorflow as tf


class RecomputableLayer(tf.keras.layers.Layer):
    """A layer that `recompute_blocks` can tell to compute what is inside it once more, in training.

    Its inputs are positional arguments of `call`, tensors or None; its first output is one that the loss depends on.
    """

    recomputed = False

    def __call__(self, *inputs, training=False):
        call = super().__call__
        if not (self.recomputed and training) or _current() is not None:
            return call(*inputs, training=training)
        return _recomputed(lambda *again: call(*again, training=True), inputs)


def recompute_blocks(model: tf.keras.Model) -> None:
    """Makes every block and decoder layer of `model` recompute, in training, what lies inside it."""
    for layer in model.submodules:
        if isinstance(layer, RecomputableLayer):
            layer.recomputed = True


def first_time() -> bool:
    """Whether what is computed here is not a recomputation."""
    run = _current()
    return run is None or not run.again


def drawn_once(draw: Callable[[], tf.Tensor]) -> tf.Tensor:
    """What `draw` gives; in a recomputation, what it gave the first time. For small tensors: they are kept."""
    run = _current()
    if run is None:
        return draw()
    if not run.again:
        run.drawn.append(draw())
        return run.drawn[-1]
    run.replayed += 1
    return run.drawn[run.replayed - 1]


@dataclasses.dataclass
class _Run:
    """The computations of one block: random tensors of the first, and how many of them the current one has seen.

    Attributes:
        upstream: gradients of the block's outputs, once they are there.
    """

    drawn: list[tf.Tensor] = dataclasses.field(default_factory=list)
    replayed: int = 0
    again: bool = False
    upstream: tuple[tf.Tensor, ...] = ()

    def after_upstream(self, x: tf.Tensor) -> tf.Tensor:
        """`x`, but not before the gradients of the outputs are there; without them it could be computed at once, and
        XLA would find that it has been already. (What `tf.recompute_grad` does to that end, XLA sees through.)
        """
        first = tf.add_n([tf.cast(tf.reshape(gradient, [-1])[0], tf.float32) for gradient in self.upstream])
        # Zero; where a gradient is NaN that too, but then all are lost anyway.
        return x + tf.cast(tf.minimum(tf.abs(first), 0.0), x.dtype)


# Replicas are traced in threads of their own.
_threads = threading.local()


def _current() -> _Run | None:
    return getattr(_threads, "run", None)


@contextlib.contextmanager
def _inside(run: _Run) -> Iterator[None]:
    _threads.run = run
    try:
        yield
    finally:
        _threads.run = None


def _recomputed(function: Callable, inputs: tuple):
    """`function(*inputs)`, of which the backward pass keeps the inputs only."""
    run = _Run()
    there = [x is not None for x in inputs]
    structure = []

    def tensors(*given):
        given = iter([run.after_upstream(x) for x in given] if run.again else given)
        with _inside(run):
            outputs = function(*(next(given) if is_there else None for is_there in there))
        structure[:] = [outputs]
        run.again, run.replayed = True, 0
        return [x for x in tf.nest.flatten(outputs) if x is not None]

    @tf.custom_gradient
    def with_upstream(*outputs):
        def gradient(*upstream):
            run.upstream = upstream
            return upstream

        return outputs, gradient

    results = iter(with_upstream(*tf.recompute_grad(tensors)(*(x for x in inputs if x is not None))))
    outputs = structure[0]
    flat = [None if x is None else next(results) for x in tf.nest.flatten(outputs)]
    return tf.nest.pack_sequence_as(outputs, flat)
