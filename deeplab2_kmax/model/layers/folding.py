"""Folding: a batch norm becomes part of the kernel before it, because in inference both are one linear map.

In inference, batch norm computes y * scale + shift with constants per channel. With y = x * K this equals
x * (K * scale) + shift: a convolution with another kernel and a bias, which saves one pass over the features.

By default a layer multiplies kernel and scale at every call, so that its variables may change between calls, as they do
between evaluations during training. A model that only predicts does it once and for all, by `fold_batch_norms`.
"""

from __future__ import annotations

import tensorflow as tf


class FoldingLayer(tf.keras.layers.Layer):
    """A layer whose kernel and batch norm become one kernel and one bias in inference."""

    def __init__(self, name: str | None = None):
        super().__init__(name=name)
        # Private names: the folded weights must not appear in checkpoints (see checkpoints/keys.py).
        self._folded_kernel: tf.Variable | None = None
        self._folded_bias: tf.Variable | None = None

    def combined_weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Kernel and bias that have the effect of the layer's kernel followed by its batch norm in inference.

        Returns:
            (kernel, bias), float32, so that they are rounded to the layer's precision only once, after they are
            combined. Folded layers and layers that combine at every call then compute exactly the same.
        """
        raise NotImplementedError

    def inference_weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        """(kernel, bias) in the precision the layer computes in: the folded ones, or `combined_weights` as of now."""
        if self._folded_kernel is None:
            return self._rounded(self.combined_weights())
        return self._folded_kernel, self._folded_bias

    def fold(self) -> None:
        """Fixes `inference_weights` at their present values; later changes of the layer's variables have no effect."""
        kernel, bias = self._rounded(self.combined_weights())
        self._folded_kernel = tf.Variable(kernel, trainable=False, name="folded_kernel")
        self._folded_bias = tf.Variable(bias, trainable=False, name="folded_bias")

    def _rounded(self, weights: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        kernel, bias = weights
        return tf.cast(kernel, self.compute_dtype), tf.cast(bias, self.compute_dtype)


def fold_batch_norms(model: tf.Module) -> None:
    """Folds every layer of a built `model` for good. It then predicts faster, but must not be trained or reloaded."""
    for layer in model.submodules:
        # Layers that the model never called have no weights that could be folded.
        if isinstance(layer, FoldingLayer) and layer.built:
            layer.fold()
