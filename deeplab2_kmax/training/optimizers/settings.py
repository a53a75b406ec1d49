"""The solver options of a config as plain values."""

from __future__ import annotations

import dataclasses

from deeplab2_kmax.config.checks import LEARNING_POLICIES, OPTIMIZERS
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.training.optimizers.batch_scaling import learning_rate_factor

# Those with decoupled weight decay.
DECAYING_OPTIMIZERS = ("adamw", "radam", "lamb")


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
        optimizer: "adamw", "adam", "sgd" (momentum 0.9), "radam" (RectifiedAdam) or "lamb".
        schedule: the learning rate.
        weight_decay: decoupled weight decay of "adamw", "radam" and "lamb": kernels shrink by
            `learning_rate * weight_decay` a step (with "lamb" by the layer's adapted rate).
        backbone_multiplier: learning rate of the pixel encoder relative to the rest; None: one optimizer for all.
        clip_norm: limit of the gradients' global norm; None: no clipping.
        clip_sum: the limit is for the gradients summed over replicas; False: for each replica's own, before they are
            summed.
        lookahead_sync_period: Lookahead around the optimizer: every so many steps slow weights go
            `lookahead_slow_step_size` of the way to the fast ones, which start again from there; 0: no Lookahead.
        lookahead_slow_step_size: in 0 .. 1.
        average_decay: of the moving average of the weights, see `WeightAverages`; 0: no average.
    """

    optimizer: str
    schedule: Schedule
    weight_decay: float = 0.0
    backbone_multiplier: float | None = None
    clip_norm: float | None = None
    clip_sum: bool = False
    lookahead_sync_period: int = 0
    lookahead_slow_step_size: float = 0.5
    average_decay: float = 0.0

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}; came {self.optimizer!r}")
        if self.lookahead_sync_period < 0:
            raise ConfigError(f"lookahead_sync_period: expected 0 (off) or more, came {self.lookahead_sync_period}")
        if not 0 < self.lookahead_slow_step_size <= 1:
            raise ConfigError(
                f"lookahead_slow_step_size: expected a number above 0, at most 1; came {self.lookahead_slow_step_size}"
            )

        if not 0 <= self.average_decay < 1:
            raise ConfigError(
                f"weight_average_decay: expected 0 (off) or a number below 1 such as 0.9999; came {self.average_decay}"
            )

    @property
    def decays(self) -> bool:
        """Whether any variable decays."""
        return self.optimizer in DECAYING_OPTIMIZERS and self.weight_decay != 0


def solver_settings(options: config_pb2.SolverOptions, batch_size: int | None = None) -> SolverSettings:
    """The settings a config's `trainer_options.solver_options` ask for.

    Args:
        options: of the config.
        batch_size: images of one update; decides the learning rate where a reference batch size is given.
    """
    factor = 1.0 if batch_size is None else learning_rate_factor(options, batch_size)
    clips = options.use_gradient_clipping and options.clip_gradient_norm > 0
    has_multiplier = options.HasField("backbone_learning_rate_multiplier")
    return SolverSettings(
        optimizer=options.optimizer,
        schedule=Schedule(
            base_learning_rate=options.base_learning_rate * factor,
            policy=options.learning_policy,
            total_steps=options.training_number_of_steps,
            warmup_steps=options.warmup_steps,
            poly_power=options.poly_learning_power,
            poly_end_learning_rate=options.poly_end_learning_rate * factor,
        ),
        weight_decay=options.adamw_weight_decay,
        backbone_multiplier=options.backbone_learning_rate_multiplier if has_multiplier else None,
        clip_norm=options.clip_gradient_norm if clips else None,
        clip_sum=options.clipped_gradients == options.SUM_OVER_REPLICAS,
        lookahead_sync_period=options.lookahead_sync_period,
        lookahead_slow_step_size=options.lookahead_slow_step_size,
        average_decay=options.weight_average_decay,
    )
