"""One optimizer of the kind that a config names."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from deeplab2_kmax.training.optimizers.param_groups import DECAYED_VARIABLES
from deeplab2_kmax.training.optimizers.schedules import build_schedule
from deeplab2_kmax.training.optimizers.settings import SolverSettings

_SGD_MOMENTUM = 0.9
_NOT_DECAYED = rf"^(?!.*{DECAYED_VARIABLES})"


def build_optimizer(settings: SolverSettings, multiplier: float = 1.0) -> tf.keras.optimizers.legacy.Optimizer:
    """One optimizer, whose learning rate is the schedule times `multiplier`."""
    optimizer = _KINDS[settings.optimizer](settings, build_schedule(settings.schedule, multiplier))
    if not settings.lookahead_sync_period:
        return optimizer
    # Imported late, here and below: libraries that only some optimizers need.
    from deeplab2_kmax.training.optimizers.radam_lookahead import lookahead

    return lookahead(optimizer, settings.lookahead_sync_period, settings.lookahead_slow_step_size)


def _adam(
    settings: SolverSettings, rate: tf.keras.optimizers.schedules.LearningRateSchedule
) -> tf.keras.optimizers.legacy.Optimizer:
    del settings
    return tf.keras.optimizers.legacy.Adam(rate)


def _sgd(
    settings: SolverSettings, rate: tf.keras.optimizers.schedules.LearningRateSchedule
) -> tf.keras.optimizers.legacy.Optimizer:
    del settings
    return tf.keras.optimizers.legacy.SGD(rate, momentum=_SGD_MOMENTUM)


def _adamw(
    settings: SolverSettings, rate: tf.keras.optimizers.schedules.LearningRateSchedule
) -> tf.keras.optimizers.legacy.Optimizer:
    from official.modeling.optimization.legacy_adamw import AdamWeightDecay

    return AdamWeightDecay(
        rate,
        weight_decay_rate=settings.weight_decay,
        include_in_weight_decay=[DECAYED_VARIABLES],
        exclude_from_weight_decay=[""],  # Matches every name; what is included explicitly decays all the same.
        gradient_clip_norm=0.0,  # Gradients are clipped by the training step, which sees those of all optimizers.
    )


def _radam(
    settings: SolverSettings, rate: tf.keras.optimizers.schedules.LearningRateSchedule
) -> tf.keras.optimizers.legacy.Optimizer:
    from deeplab2_kmax.training.optimizers.radam_lookahead import rectified_adam

    return rectified_adam(rate, settings.weight_decay)


def _lamb(
    settings: SolverSettings, rate: tf.keras.optimizers.schedules.LearningRateSchedule
) -> tf.keras.optimizers.legacy.Optimizer:
    from deeplab2_kmax.training.optimizers.lamb import LayerwiseAdam

    # The rate of variables that do not decay is not adapted by layer either: the paper's authors chose so for biases
    # and normalization parameters.
    return LayerwiseAdam(
        rate,
        weight_decay_rate=settings.weight_decay,
        exclude_from_weight_decay=[_NOT_DECAYED],
        exclude_from_layer_adaptation=[_NOT_DECAYED],
    )


_KINDS: dict[
    str,
    Callable[
        [SolverSettings, tf.keras.optimizers.schedules.LearningRateSchedule], tf.keras.optimizers.legacy.Optimizer
    ],
] = {
    "adam": _adam,
    "sgd": _sgd,
    "adamw": _adamw,
    "radam": _radam,
    "lamb": _lamb,
}
