"""Initializers that several layers share."""

from __future__ import annotations

import tensorflow as tf


def small_normal() -> tf.keras.initializers.Initializer:
    """Normal with standard deviation 0.02. One object a weight: an unseeded initializer repeats its values."""
    return tf.keras.initializers.RandomNormal(stddev=0.02)


def small_truncated_normal() -> tf.keras.initializers.Initializer:
    """The same, truncated at two standard deviations."""
    return tf.keras.initializers.TruncatedNormal(stddev=0.02)
