"""The learning rate as a function of the step."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.training.optimizers.settings import Schedule


class LinearWarmUp(tf.keras.optimizers.schedules.LearningRateSchedule):
    """`peak * step / steps` below `steps`, and `after(step)` from there on."""

    def __init__(self, peak: float, steps: int, after: tf.keras.optimizers.schedules.LearningRateSchedule):
        super().__init__()
        self.peak = peak
        self.steps = steps
        self.after = after

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        return tf.where(step < self.steps, self.peak * (step / self.steps), self.after(step))

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps, "after": self.after}


def build_schedule(schedule: Schedule, multiplier: float = 1.0) -> tf.keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate as a function of the step; `multiplier` scales it (but not poly's end rate)."""
    rate = schedule.base_learning_rate * multiplier
    if schedule.policy == "poly":
        decay = tf.keras.optimizers.schedules.PolynomialDecay(
            rate, schedule.total_steps, schedule.poly_end_learning_rate, schedule.poly_power
        )
    else:
        decay = tf.keras.optimizers.schedules.CosineDecay(rate, schedule.total_steps)
    return LinearWarmUp(rate, schedule.warmup_steps, decay) if schedule.warmup_steps else decay
