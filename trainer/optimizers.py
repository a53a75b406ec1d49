"""Optimizers and learning rate schedules of DeepLab2's solver options.

The optimizers are Keras' legacy ones, so that a checkpoint holds their state under DeepLab2's keys
(`<variable>/.OPTIMIZER_SLOT/optimizer/m`, `optimizer/iter`, ...).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import tensorflow as tf
from official.modeling.optimization.legacy_adamw import AdamWeightDecay

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2

OPTIMIZERS = ("adam", "adamw", "sgd")
LEARNING_POLICIES = ("poly", "cosine")
# Kernels decay; biases, normalisation parameters, positional tables and cluster centers do not.
DECAYED_VARIABLES = r"(kernel|weight):0$"
_SGD_MOMENTUM = 0.9


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

    def __post_init__(self):
        if self.policy not in LEARNING_POLICIES:
            raise ConfigError(f"learning_policy: expected one of {', '.join(LEARNING_POLICIES)}; came {self.policy!r}")
        if self.total_steps < 1:
            raise ConfigError(f"training_number_of_steps: expected at least 1, came {self.total_steps}")


@dataclasses.dataclass(frozen=True)
class SolverSettings:
    """How weights are updated.

    Attributes:
        optimizer: "adamw", "adam", or "sgd" (momentum 0.9).
        schedule: the learning rate.
        weight_decay: decoupled weight decay of "adamw": kernels shrink by `learning_rate * weight_decay` a step.
        backbone_multiplier: learning rate of the pixel encoder relative to the rest; None: one optimizer for all.
        clip_norm: per-replica limit of the gradients' global norm; None: no clipping.
    """

    optimizer: str
    schedule: Schedule
    weight_decay: float = 0.0
    backbone_multiplier: float | None = None
    clip_norm: float | None = None

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}; came {self.optimizer!r}")


def solver_settings(options: config_pb2.SolverOptions) -> SolverSettings:
    """The settings a config's `trainer_options.solver_options` ask for."""
    clips = options.use_gradient_clipping and options.clip_gradient_norm > 0
    has_multiplier = options.HasField("backbone_learning_rate_multiplier")
    return SolverSettings(
        optimizer=options.optimizer,
        schedule=Schedule(
            base_learning_rate=options.base_learning_rate,
            policy=options.learning_policy,
            total_steps=options.training_number_of_steps,
            warmup_steps=options.warmup_steps,
            poly_power=options.poly_learning_power,
            poly_end_learning_rate=options.poly_end_learning_rate,
        ),
        weight_decay=options.adamw_weight_decay,
        backbone_multiplier=options.backbone_learning_rate_multiplier if has_multiplier else None,
        clip_norm=options.clip_gradient_norm if clips else None,
    )


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


def build_optimizer(settings: SolverSettings, multiplier: float = 1.0) -> tf.keras.optimizers.legacy.Optimizer:
    """One optimizer whose learning rate is the schedule times `multiplier`."""
    rate = build_schedule(settings.schedule, multiplier)
    if settings.optimizer == "adam":
        return tf.keras.optimizers.legacy.Adam(rate)
    if settings.optimizer == "sgd":
        return tf.keras.optimizers.legacy.SGD(rate, momentum=_SGD_MOMENTUM)
    return AdamWeightDecay(
        rate,
        weight_decay_rate=settings.weight_decay,
        include_in_weight_decay=[DECAYED_VARIABLES],
        exclude_from_weight_decay=[""],  # Matches every name, so what is not included stays out.
        gradient_clip_norm=0.0,
    )


@dataclasses.dataclass(frozen=True)
class Optimizers:
    """The optimizer of the model, and one of its own for the pixel encoder where its rate differs.

    Attributes:
        main: updates everything `backbone` does not.
        backbone: updates the pixel encoder's variables, or None.
        backbone_variables: the pixel encoder's trainable variables.
        clip_norm: per-replica limit of the gradients' global norm, or None.
    """

    main: tf.keras.optimizers.legacy.Optimizer
    backbone: tf.keras.optimizers.legacy.Optimizer | None = None
    backbone_variables: Sequence[tf.Variable] = ()
    clip_norm: float | None = None

    @property
    def checkpoint_items(self) -> dict[str, tf.keras.optimizers.legacy.Optimizer]:
        """The optimizers by the names they have in a checkpoint."""
        items = {"optimizer": self.main}
        return items if self.backbone is None else {**items, "backbone_optimizer": self.backbone}

    def learning_rate(self, step) -> tf.Tensor:
        """Scalar float32: the rate of `main` at `step`."""
        return self.main.learning_rate(step)

    def apply(self, gradients_and_variables: Iterable[tuple[tf.Tensor, tf.Variable]]) -> None:
        """Updates the variables once, in replica context; gradients are summed over replicas."""
        for optimizer, group in self.split(gradients_and_variables):
            optimizer.apply_gradients(group)

    def split(self, pairs):
        """Yields each optimizer with those of the (gradient, variable) pairs it is for."""
        pairs = list(pairs)
        if self.backbone is None:
            yield self.main, pairs
            return
        of_backbone = {id(variable) for variable in self.backbone_variables}
        yield self.main, [pair for pair in pairs if id(pair[1]) not in of_backbone]
        yield self.backbone, [pair for pair in pairs if id(pair[1]) in of_backbone]


def build_optimizers(
    settings: SolverSettings, variables: Iterable[tf.Variable], backbone_variables: Sequence[tf.Variable] = ()
) -> Optimizers:
    """The optimizers of a model, with their state; call it in the strategy's scope.

    Args:
        settings: how weights are updated.
        variables: all trainable variables of the model.
        backbone_variables: those of its pixel encoder.
    """
    backbone = None
    if settings.backbone_multiplier is not None and backbone_variables:
        backbone = build_optimizer(settings, settings.backbone_multiplier)
    optimizers = Optimizers(build_optimizer(settings), backbone, tuple(backbone_variables), settings.clip_norm)
    # Left to themselves optimizers make their variables in their first step, and a tf.function that makes variables is
    # traced twice.
    for optimizer, pairs in optimizers.split((None, variable) for variable in variables):
        optimizer._create_all_weights([variable for _, variable in pairs])
    return optimizers
