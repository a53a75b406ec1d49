"""Dropout (Srivastava et al., JMLR 2014), with draws that a seeded run repeats."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.random_draws import uniform


def dropout(x: tf.Tensor, rate: float, training: bool) -> tf.Tensor:
    """In training, zeroes each element of `x` [B, ...] with probability `rate`; the others grow by 1 / (1 - rate)."""
    if not training or rate == 0.0:
        return x
    kept = uniform(tf.unstack(tf.shape(x))) >= rate
    return tf.where(kept, x * tf.cast(1.0 / (1.0 - rate), x.dtype), tf.zeros_like(x))
