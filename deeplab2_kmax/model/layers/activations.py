"""Activation functions by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

# (features, training) -> features.
Activation = Callable[..., tf.Tensor]


def gelu(x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """x * Phi(x), Phi the normal distribution's cumulative function: the exact form, as in kMaX-DeepLab.

    (Hendrycks and Gimpel, 2016; not the tanh approximation.) TensorFlow's function is what its graph optimizer knows
    how to fuse; `training` takes one that needs less memory for its gradient.
    """
    return _gelu_with_gradient(x) if training else tf.nn.gelu(x, approximate=False)


@tf.custom_gradient
def _gelu_with_gradient(x):
    """The gradient, Phi(x) + x phi(x), derived from the forward pass would keep four tensors of the size of x."""
    cumulative = 0.5 * (1.0 + tf.math.erf(x * math.sqrt(0.5)))

    def gradient(dy):
        density = tf.exp(-0.5 * tf.square(x)) * (1.0 / math.sqrt(2.0 * math.pi))
        return dy * (cumulative + x * density)

    return x * cumulative, gradient


ACTIVATIONS: dict[str | None, Activation] = {
    None: lambda x, training=False: x,
    "relu": lambda x, training=False: tf.nn.relu(x),
    "gelu": gelu,
}


def activation(name: str | None) -> Activation:
    """The function called `name`: "relu", "gelu", or None for the identity."""
    return ACTIVATIONS[name]
