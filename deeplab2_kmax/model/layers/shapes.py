"""Shapes that are static where TensorFlow knows them and dynamic where it does not."""

from __future__ import annotations

import tensorflow as tf


def shape_of(x: tf.Tensor) -> list[int | tf.Tensor]:
    """The dimensions of `x`: Python integers where they are known, scalar int32 tensors elsewhere."""
    static = x.shape.as_list()
    # Without unknown dimensions no operation is added to the graph, which keeps graphs small and quick to trace.
    if None not in static:
        return static
    dynamic = tf.shape(x)
    return [dynamic[i] if size is None else size for i, size in enumerate(static)]
