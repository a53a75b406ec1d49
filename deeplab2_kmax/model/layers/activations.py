"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

ACTIVATIONS: dict[str | None, Callable[[tf.Tensor], tf.Tensor]] = {
    None: tf.identity,
    "relu": tf.nn.relu,
    # The exact form, x * Phi(x), as in kMaX-DeepLab; not the tanh approximation.
    "gelu": lambda x: tf.nn.gelu(x, approximate=False),
}


def activation(name: str | None) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function called `name`: "relu", "gelu", or None for the identity."""
    return ACTIVATIONS[name]
