"""Batch normalization folded into the kernel before it: in inference both are one linear map.

A layer that is not folded does the multiplication at every call, so that its variables may change between calls. A
model that only predicts does it once, by `fold_batch_norms`.
"""

from __future__ import annotations

import tensorflow as tf


class FoldingLayer(tf.keras.layers.Layer):
    """A layer whose kernel and batch norm become one kernel and bias in inference."""

    def __init__(self, name: str | None = None):
        super().__init__(name=name)
        self._folded_kernel: tf.Variable | None = None
        self._folded_bias: tf.Variable | None = None

    def combined_weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        """(kernel, bias) that do in inference what the layer's kernel and normalization do one after the other.

        Float32, so that what is folded once and what is combined at each call are the same after rounding.
        """
        raise NotImplementedError

    def inference_weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        """`combined_weights`, or what `fold` made of them, in the precision the layer computes in."""
        if self._folded_kernel is None:
            return self._rounded(self.combined_weights())
        return self._folded_kernel, self._folded_bias

    def fold(self) -> None:
        """Fixes `inference_weights` as they are now; later changes to the layer's variables do not reach them."""
        kernel, bias = self._rounded(self.combined_weights())
        self._folded_kernel = tf.Variable(kernel, trainable=False, name="folded_kernel")
        self._folded_bias = tf.Variable(bias, trainable=False, name="folded_bias")

    def _rounded(self, weights):
        return tuple(tf.cast(weight, self.compute_dtype) for weight in weights)


def fold_batch_norms(model: tf.keras.Model) -> None:
    """Folds every layer of a built `model` for good; it then predicts faster and must not be trained or reloaded."""
    for layer in model.submodules:
        if isinstance(layer, FoldingLayer) and layer.built:
            layer.fold()
