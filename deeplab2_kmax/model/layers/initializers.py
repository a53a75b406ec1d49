"""Weight initializers that ConvNeXt and MOAT share.

These are functions, not constants, so that each weight gets an initializer of its own: an unseeded Keras initializer
that is called twice returns the same values twice.
"""

from __future__ import annotations

import tensorflow as tf


def small_normal() -> tf.keras.initializers.Initializer:
    """A new initializer: normal distribution with a standard deviation of 0.02."""
    return tf.keras.initializers.RandomNormal(stddev=0.02)


def small_truncated_normal() -> tf.keras.initializers.Initializer:
    """A new initializer: as `small_normal`, truncated at two standard deviations."""
    return tf.keras.initializers.TruncatedNormal(stddev=0.02)
