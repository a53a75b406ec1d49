"""Random regularization in training: whole residual branches are dropped (drop path), or single elements (dropout).

Both draw through `deeplab2_kmax.random_draws`, so that a seeded run repeats its draws.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.recomputation import drawn_once
from deeplab2_kmax.random_draws import uniform


def drop_path(x: tf.Tensor, keep_prob: float, training: bool) -> tf.Tensor:
    """In training, drops the residual branch of each image with probability 1 - keep_prob.

    Branches that are kept are scaled by 1 / keep_prob, so that the expectation does not change (Huang et al., "Deep
    Networks with Stochastic Depth", ECCV 2016).

    Args:
        x: [B, ...], the output of the branch.
        keep_prob: in (0, 1].
        training: whether anything is dropped.

    Returns:
        A tensor like `x`.
    """
    if not training or keep_prob == 1.0:
        return x
    shape = [tf.shape(x)[0]] + [1] * (x.shape.rank - 1)
    # A block that is recomputed in the backward pass must drop the same branches as in the forward pass.
    kept = drawn_once(lambda: tf.floor(keep_prob + uniform(shape)))
    return x * tf.cast(kept / keep_prob, x.dtype)


def linear_keep_prob(last_keep_prob: float, stage: int, stages: int) -> float:
    """Keep-probability of `stage` where it falls linearly from 1 at stage 0 to `last_keep_prob` at stage `stages`."""
    return 1.0 - (1.0 - last_keep_prob) * stage / stages


def dropout(x: tf.Tensor, rate: float, training: bool) -> tf.Tensor:
    """In training, sets each element to zero with probability `rate` (Srivastava et al., JMLR 2014).

    The other elements are scaled by 1 / (1 - rate), so that the expectation does not change.

    Args:
        x: [B, ...].
        rate: in [0, 1).
        training: whether anything is dropped.

    Returns:
        A tensor like `x`.
    """
    if not training or rate == 0.0:
        return x
    kept = uniform(tf.unstack(tf.shape(x))) >= rate
    return tf.where(kept, x * tf.cast(1.0 / (1.0 - rate), x.dtype), tf.zeros_like(x))
