"""Recomputation: a block keeps only its inputs for the backward pass and computes what lies inside once more.

It saves the memory of everything inside the block, for the price of a second forward pass (Chen et al., "Training Deep
Nets with Sublinear Memory Cost", 2016). The second pass has to repeat the first one exactly: it drops the same residual
branches (`drawn_once`), and it does not update the moving statistics a second time (`first_time`). With synchronized
batch norms it gathers their statistics from all replicas again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf


class RecomputableLayer(tf.keras.layers.Layer):
    """A layer that can be told, by `recompute_blocks`, to compute its inside once more in training.

    Its inputs are positional arguments of `call`, each a tensor or None. Its first output has to be one that the loss
    depends on.

    Attributes:
        recomputed: whether the layer recomputes.
    """

    recomputed = False

    def __call__(self, *inputs: tf.Tensor | None, training: bool = False) -> Any:
        call = super().__call__
        # A recomputed layer inside another one (a mobile block inside a MOAT block) is recomputed with the outer one.
        if not (self.recomputed and training) or _current() is not None:
            return call(*inputs, training=training)
        return _recomputed(lambda *again: call(*again, training=True), inputs)


def recompute_blocks(model: tf.keras.Model) -> None:
    """Makes all residual blocks and decoder layers of `model` recompute their inside in training."""
    for layer in model.submodules:
        if isinstance(layer, RecomputableLayer):
            layer.recomputed = True


def first_time() -> bool:
    """Whether the present computation is a first one; false in a recomputation."""
    run = _current()
    return run is None or not run.again


def drawn_once(draw: Callable[[], tf.Tensor]) -> tf.Tensor:
    """Draws a random tensor that a recomputation uses again.

    Args:
        draw: makes the tensor. The tensor is kept until the backward pass, so it should be small.

    Returns:
        What `draw` returns; in a recomputation, what it returned the first time.
    """
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
    """The two computations of one block in one step.

    Attributes:
        drawn: random tensors of the first computation, in order.
        replayed: how many of them the recomputation has used so far.
        again: whether the next computation is a recomputation.
        upstream: gradients of the block's outputs; empty until the backward pass reaches the block.
    """

    drawn: list[tf.Tensor] = dataclasses.field(default_factory=list)
    replayed: int = 0
    again: bool = False
    upstream: tuple[tf.Tensor, ...] = ()

    def after_upstream(self, x: tf.Tensor) -> tf.Tensor:
        """Returns `x`, made to depend on the gradients of the block's outputs.

        Without this dependency the recomputation could run right after the first computation, which would save no
        memory, and XLA would merge the two because they are the same. `tf.recompute_grad` adds a dependency of its own
        for this purpose, but XLA optimizes that one away.
        """
        # One element of each gradient suffices. min(|g|, 0) is zero for every number g, but not a constant that a
        # compiler would fold.
        first = tf.add_n([tf.cast(tf.reshape(gradient, [-1])[0], tf.float32) for gradient in self.upstream])
        # A NaN in the gradient makes this NaN, not zero. All gradients of the step are lost then anyway.
        return x + tf.cast(tf.minimum(tf.abs(first), 0.0), x.dtype)


# Replicas are traced in threads of their own, so each thread has a run of its own.
_threads = threading.local()


def _current() -> _Run | None:
    """The run of the block that is being computed in this thread; None outside recomputed blocks."""
    return getattr(_threads, "run", None)


@contextlib.contextmanager
def _inside(run: _Run) -> Iterator[None]:
    _threads.run = run
    try:
        yield
    finally:
        _threads.run = None


def _recomputed(function: Callable[..., Any], inputs: tuple[tf.Tensor | None, ...]) -> Any:
    """Computes `function(*inputs)` so that the backward pass keeps only the inputs.

    `tf.recompute_grad` takes and returns flat sequences of tensors only. So inputs that are None are taken out before
    and put back inside, and nested outputs with None in them are flattened inside and packed again outside.
    """
    run = _Run()
    is_tensor = [x is not None for x in inputs]
    # Filled by the first computation; the outputs' structure is known only then.
    structure: list[Any] = []

    def flat_outputs(*given: tf.Tensor) -> list[tf.Tensor]:
        tensors = iter([run.after_upstream(x) for x in given] if run.again else given)
        with _inside(run):
            outputs = function(*(next(tensors) if present else None for present in is_tensor))
        structure[:] = [outputs]
        # tf.recompute_grad calls this function once now and once in the backward pass.
        run.again, run.replayed = True, 0
        return [x for x in tf.nest.flatten(outputs) if x is not None]

    # An identity whose gradient function runs before the block's: there the gradients of the outputs are first seen.
    @tf.custom_gradient
    def with_upstream(*outputs):
        def gradient(*upstream):
            run.upstream = upstream
            return upstream

        return outputs, gradient

    results = iter(with_upstream(*tf.recompute_grad(flat_outputs)(*(x for x in inputs if x is not None))))
    outputs = structure[0]
    flat = [None if x is None else next(results) for x in tf.nest.flatten(outputs)]
    return tf.nest.pack_sequence_as(outputs, flat)
