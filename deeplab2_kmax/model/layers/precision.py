"""Mixed precision: weights are float32, while convolutions and matrix products run in bfloat16 or float16.

A layer computes in the type of the Keras dtype policy that is set when the layer is made (see `layers_in`). Keras casts
the layer's first input to that type, and casts weights wherever the layer reads them. Two things are float32 in every
precision:

- Weights that are combined with other weights before they meet features (for example a kernel into which a
  normalization is folded), and the weights of normalizations. Rounding them before they are combined would round twice.
  They are made by `add_float32_weight`, and the layer casts the combined result.
- Statistics, softmax over pixels or centers, and sums over pixels: sums of thousands of bfloat16 numbers would lose
  what the small ones contribute. `as_float32` stands where such a computation begins. Layers that take float32 tensors
  as inputs are made with `autocast=False`, so that Keras leaves those inputs alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf


@contextlib.contextmanager
def layers_in(precision: str) -> Iterator[None]:
    """Within the block, layers are made and built to compute in `precision`.

    Keras keeps one policy for the whole process. At the end, also after an error, the policy from before is set again.

    Args:
        precision: name of a Keras dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".
    """
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(precision)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def add_float32_weight(
    layer: tf.keras.layers.Layer, name: str, shape: Sequence[int], initializer: Any, **options: Any
) -> tf.Variable:
    """Adds a weight to `layer` that Keras does not cast to the layer's type when the layer reads it.

    Args:
        layer: the layer that owns the weight.
        name, shape, initializer, options: of `tf.keras.layers.Layer.add_weight`.

    Returns:
        The variable, float32.
    """
    return layer.add_weight(name, shape, initializer=initializer, experimental_autocast=False, **options)


def as_float32(x: tf.Tensor) -> tf.Tensor:
    """Casts `x` to float32; returns `x` itself where it is float32 already."""
    return tf.cast(x, tf.float32)
