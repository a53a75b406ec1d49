"""AutoAugment with the policies of DeepLab2: which color operations an image gets, in which order, and how strong.

A policy is a list of pairs of steps. For each image one pair is drawn, and each of its two steps is then taken with its
own probability. Multiplied out, this is a table of chains of operations, each with the probability that an image gets
exactly this chain (`chains_of`), so a single draw is enough. The empty chain is the most frequent.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeplab2_kmax.input_pipeline.color_operations import OPERATIONS


class Step(NamedTuple):
    """One step of a policy.

    Attributes:
        operation: a name in `OPERATIONS`.
        probability: that the step is taken, 0..1.
        level: how strong the operation is, 0..10.
    """

    operation: str
    probability: float
    level: float


class Chain(NamedTuple):
    """What an image may get.

    Attributes:
        steps: (operation, level) in the order in which they are applied.
        probability: that an image gets exactly these steps, 0..1.
    """

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
    probabilities: dict[tuple[tuple[str, float], ...], float] = {(): 0.0}
    for pair in policy:
        for taken in itertools.product((False, True), repeat=len(pair)):
            probability = 1.0 / len(policy)
            for step, is_taken in zip(pair, taken):
                probability *= step.probability if is_taken else 1.0 - step.probability
            steps = tuple((step.operation, step.level) for step, is_taken in zip(pair, taken) if is_taken)
            # Two pairs may lead to the same chain.
            probabilities[steps] = probabilities.get(steps, 0.0) + probability
    return tuple(Chain(steps, p) for steps, p in probabilities.items() if p > 0 or not steps)


def draw_chain(seed: tf.Tensor, policy: Policy) -> tf.Tensor:
    """Draws the chain that an image gets.

    Args:
        seed: [2] int64; equal seeds draw equal chains.
        policy: the policy to draw from.

    Returns:
        Scalar int32, an index in `chains_of(policy)`.
    """
    ends = np.cumsum([chain.probability for chain in chains_of(policy)])[:-1]
    draw = tf.random.stateless_uniform([], seed)
    return tf.reduce_sum(tf.cast(draw >= tf.constant(ends, tf.float32), tf.int32))


def apply_chain(image: tf.Tensor, chain: tf.Tensor, policy: Policy) -> tf.Tensor:
    """Applies a chain to an image.

    Args:
        image: [H, W, 3] uint8.
        chain: scalar int32, an index in `chains_of(policy)`.
        policy: the policy that it was drawn from.

    Returns:
        [H, W, 3] uint8.
    """

    def branch(steps: tuple[tuple[str, float], ...]) -> Callable[[], tf.Tensor]:
        return lambda: functools.reduce(lambda pixels, step: OPERATIONS[step[0]](pixels, step[1]), steps, image)

    return tf.switch_case(chain, [branch(chain.steps) for chain in chains_of(policy)])
