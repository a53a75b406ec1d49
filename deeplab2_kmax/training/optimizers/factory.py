"""One optimizer of the kind that a config names."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.training.optimizers.param_groups import DECAYED_VARIABLES
from deeplab2_kmax.training.optimizers.schedules import build_schedule
from deeplab2_kmax.training.optimizers.settings import SolverSettings

_SGD_MOMENTUM = 0.9
_NOT_DECAYED = rf"^(?!.*{DECAYED_VARIABLES})"


def build_optimizer(settings: SolverSettings, multiplier: float = 1.0) -> tf.keras.optimizers.legacy.Optimizer:
    """One optimizer whose learning rate is the schedule times `multiplier`.

    Raises:
        ConfigError: it is one of tensorflow-addons', which is not installed.
    """
    rate = build_schedule(settings.schedule, multiplier)
    optimizer = _KINDS[settings.optimizer](settings, rate)
    if not settings.lookahead_sync_period:
        return optimizer
    from deeplab2_kmax.training.optimizers.radam_lookahead import lookahead

    return lookahead(optimizer, settings.lookahead_sync_period, settings.lookahead_slow_step_size)


def _adam(settings: SolverSettings, rate):
    del settings
    return tf.keras.optimizers.legacy.Adam(rate)


def _sgd(settings: SolverSettings, rate):
    del settings
    return tf.keras.optimizers.legacy.SGD(rate, momentum=_SGD_MOMENTUM)


def _adamw(settings: SolverSettings, rate):
    from official.modeling.optimization.legacy_adamw import AdamWeightDecay

    return AdamWeightDecay(
        rate,
        weight_decay_rate=settings.weight_decay,
        include_in_weight_decay=[DECAYED_VARIABLES],
        exclude_from_weight_decay=[""],  # Matches every name, so what is not included stays out.
        gradient_clip_norm=0.0,
    )


def _radam(settings: SolverSettings, rate):
    from deeplab2_kmax.training.optimizers.radam_lookahead import rectified_adam

    return rectified_adam(rate, settings.weight_decay)


def _lamb(settings: SolverSettings, rate):
    from deeplab2_kmax.training.optimizers.lamb import LayerwiseAdam

    # Variables that do not decay are not adapted by layer either: that is the paper authors' choice for biases and
    # normalisation.
    return LayerwiseAdam(
        rate,
        weight_decay_rate=settings.weight_decay,
        exclude_from_weight_decay=[_NOT_DECAYED],
        exclude_from_layer_adaptation=[_NOT_DECAYED],
    )


_KINDS = {"adam": _adam, "sgd": _sgd, "adamw": _adamw, "radam": _radam, "lamb": _lamb}
