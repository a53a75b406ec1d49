"""The learning rate as a function of the step."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from deeplab2_kmax.config.checks import LEARNING_POLICIES
from deeplab2_kmax.config.problems import choice_problems, refuse


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the learning rate runs over training.

    Attributes:
        base_learning_rate: the rate the decay starts from, and the one warm-up rises to.
        policy: "poly", `(base - end) * (1 - step / total_steps) ** power + end`, or "cosine",
            `base * (1 + cos(pi * step / total_steps)) / 2`.
        total_steps: step at which the decay ends.
        warmup_steps: below this step the rate is `base * step / warmup_steps`. The decay counts from step 0 all the
            same, so that at the end of warm-up the rate drops from `base` onto the decay curve, as in DeepLab2.
        poly_power: exponent of "poly".
        poly_end_learning_rate: rate at the end of "poly".
    """

    base_learning_rate: float
    policy: str = "poly"
    total_steps: int = 60000
    warmup_steps: int = 0
    poly_power: float = 0.9
    poly_end_learning_rate: float = 0.0

    def __post_init__(self) -> None:
        refuse(choice_problems("trainer_options.solver_options.learning_policy", self.policy, LEARNING_POLICIES))


class LinearWarmUp(tf.keras.optimizers.schedules.LearningRateSchedule):
    """`peak * step / steps` below `steps`, and `after(step)` from there on."""

    def __init__(self, peak: float, steps: int, after: tf.keras.optimizers.schedules.LearningRateSchedule):
        super().__init__()
        self.peak = peak
        self.steps = steps
        self.after = after

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate at `step`, scalar float32."""
        step = tf.cast(step, tf.float32)
        return tf.where(step < self.steps, self.peak * (step / self.steps), self.after(step))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras wants them."""
        return {"peak": self.peak, "steps": self.steps, "after": self.after}


def build_schedule(schedule: Schedule, multiplier: float = 1.0) -> tf.keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate as a function of the step.

    Args:
        schedule: how the rate runs.
        multiplier: scales it, but not the end rate of "poly": in DeepLab2 that is the same for all optimizers.
    """
    rate = schedule.base_learning_rate * multiplier
    if schedule.policy == "poly":
        decay = tf.keras.optimizers.schedules.PolynomialDecay(
            rate, schedule.total_steps, schedule.poly_end_learning_rate, schedule.poly_power
        )
    else:
        decay = tf.keras.optimizers.schedules.CosineDecay(rate, schedule.total_steps)
    return LinearWarmUp(rate, schedule.warmup_steps, decay) if schedule.warmup_steps else decay
