"""Activation functions by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

# (features, training) -> features.
Activation = Callable[..., tf.Tensor]


def gelu(x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """x * Phi(x), Phi being the cumulative distribution function of the standard normal distribution.

    This is the exact form, which kMaX-DeepLab uses, not the tanh approximation (Hendrycks and Gimpel, 2016).

    Args:
        x: float tensor of any shape.
        training: whether a gradient is needed. Both ways give the same values; see the comment in the code.

    Returns:
        A tensor like `x`.
    """
    # In inference, the operations of tf.nn.gelu, which runtimes that look for a GELU recognize (TensorFlow 2.15 does
    # not). In training, our own gradient needs less memory.
    return _gelu_with_gradient(x) if training else tf.nn.gelu(x, approximate=False)


@tf.custom_gradient
def _gelu_with_gradient(x):
    """GELU whose backward pass keeps two tensors, x and Phi(x); automatic differentiation would keep four."""
    cumulative = 0.5 * (1.0 + tf.math.erf(x * math.sqrt(0.5)))

    def gradient(dy):
        # d/dx (x Phi(x)) = Phi(x) + x phi(x), with phi the density. The density is cheap to compute again.
        density = tf.exp(-0.5 * tf.square(x)) * (1.0 / math.sqrt(2.0 * math.pi))
        return dy * (cumulative + x * density)

    return x * cumulative, gradient


ACTIVATIONS: dict[str | None, Activation] = {
    None: lambda x, training=False: x,
    "relu": lambda x, training=False: tf.nn.relu(x),
    "gelu": gelu,
}


def activation(name: str | None) -> Activation:
    """Returns the function called `name`: "relu", "gelu", or None for the identity.

    Raises:
        KeyError: for any other name.
    """
    return ACTIVATIONS[name]
