"""AutoAugment with the policies of DeepLab2: which colour operations an image gets, in which order, and how strong.

A policy is a list of pairs of steps. One pair is drawn for each image, then each of its steps is taken with its
probability or not. That comes to a table of chains of operations, each with the probability that an image gets just
this one (`chains_of`), so a single draw decides. The empty chain is the most frequent.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeplab2_kmax.input_pipeline.color_operations import OPERATIONS


class Step(NamedTuple):
    """An operation of `OPERATIONS`, the probability that it is taken, and its level, 0 to 10."""

    operation: str
    probability: float
    level: float


class Chain(NamedTuple):
    """Operations and levels in the order in which they are applied, and the share of images that get them."""

    steps: tuple[tuple[str, float], ...]
    probability: float


Policy = tuple[tuple[Step, ...], ...]

_SIMPLE: Policy = (
    (Step("Sharpness", 0.4, 7), Step("Brightness", 0.2, 10)),
    (Step("Equalize", 0.0, 9), Step("Contrast", 0.2, 10)),
    (Step("Sharpness", 0.2, 9), Step("Color", 0.2, 9)),
    (Step("Solarize", 0.2, 7), Step("Equalize", 0.6, 9)),
    (Step("Sharpness", 0.2, 1), Step("Equalize", 0.2, 7)),
)

# The names are also in `config.data_checks.AUTOAUGMENT_POLICIES`, which checks them without TensorFlow.
POLICIES: dict[str, Policy] = {
    "simple_classification_policy": _SIMPLE,
    "simple_classification_policy_magnitude_scale_0.2": tuple(
        tuple(step._replace(level=step.level * 0.2) for step in pair) for pair in _SIMPLE
    ),
}


@functools.cache
def chains_of(policy: Policy) -> tuple[Chain, ...]:
    """Every chain that the policy can lead to, the empty one first; the probabilities sum to 1."""
    probabilities: dict[tuple, float] = {(): 0.0}
    for pair in policy:
        for taken in itertools.product((False, True), repeat=len(pair)):
            probability = 1.0 / len(policy)
            for step, is_taken in zip(pair, taken):
                probability *= step.probability if is_taken else 1.0 - step.probability
            steps = tuple((step.operation, step.level) for step, is_taken in zip(pair, taken) if is_taken)
            probabilities[steps] = probabilities.get(steps, 0.0) + probability
    return tuple(Chain(steps, p) for steps, p in probabilities.items() if p > 0 or not steps)


def draw_chain(seed: tf.Tensor, policy: Policy) -> tf.Tensor:
    """Scalar int32, the index in `chains_of(policy)` of the chain that an image gets; `seed` is [2] int64."""
    ends = np.cumsum([chain.probability for chain in chains_of(policy)])[:-1]
    draw = tf.random.stateless_uniform([], seed)
    return tf.reduce_sum(tf.cast(draw >= tf.constant(ends, tf.float32), tf.int32))


def apply_chain(image: tf.Tensor, chain: tf.Tensor, policy: Policy) -> tf.Tensor:
    """Carries out the chain with the given index, scalar int32, on pixels [H, W, 3] uint8."""

    def branch(steps):
        return lambda: functools.reduce(lambda pixels, step: OPERATIONS[step[0]](pixels, step[1]), steps, image)

    return tf.switch_case(chain, [branch(chain.steps) for chain in chains_of(policy)])
