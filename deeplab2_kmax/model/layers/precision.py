"""Mixed precision: weights are float32, convolutions and products of matrices run in a shorter type.

A layer computes in the type of Keras' dtype policy at the time it is made (`layers_in`). Keras casts a layer's first
input to that type, and weights wherever the layer reads them. Two things are float32 in every precision:

- weights that are combined with others before they meet features (a kernel that absorbs a normalization) and those of
  normalizations: they are made by `add_float32_weight`, and the layer casts the result;
- statistics, softmax over pixels or centers, and sums over pixels: `as_float32` stands where they begin. Layers that
  take such tensors in are made with `autocast=False`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def layers_in(precision: str) -> Iterator[None]:
    """Layers made and built in the block compute in `precision`, the name of a dtype policy of Keras.

    Keras keeps one policy for the whole process; the one that was set before is set again at the end.
    """
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(precision)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def add_float32_weight(layer: tf.keras.layers.Layer, name: str, shape: list[int], initializer, **options):
    """`layer.add_weight`, of a variable that Keras does not cast to the layer's type."""
    return layer.add_weight(name, shape, initializer=initializer, experimental_autocast=False, **options)


def as_float32(x: tf.Tensor) -> tf.Tensor:
    """`x` in float32; `x` itself where it is that already."""
    return tf.cast(x, tf.float32)
