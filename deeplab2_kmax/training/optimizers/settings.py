"""The solver options of a config as plain values."""

from __future__ import annotations

import dataclasses
import math

from deeplab2_kmax.config.checks import OPTIMIZERS
from deeplab2_kmax.config.problems import choice_problems, refuse
from deeplab2_kmax.config.value_ranges import range_problems
from deeplab2_kmax.protos import config_pb2, trainer_pb2
from deeplab2_kmax.training.optimizers.schedules import Schedule

# Those with decoupled weight decay.
DECAYING_OPTIMIZERS = ("adamw", "radam", "lamb")
_WHERE = "trainer_options.solver_options"


@dataclasses.dataclass(frozen=True)
class SolverSettings:
    """How weights are updated.

    Attributes:
        optimizer: "adamw", "adam", "sgd" (momentum 0.9), "radam" (RectifiedAdam) or "lamb".
        schedule: the learning rate.
        weight_decay: decoupled weight decay of "adamw", "radam" and "lamb": kernels shrink by
            `learning_rate * weight_decay` in each step (with "lamb" the learning rate is the layer's adapted one).
        backbone_multiplier: learning rate of the pixel encoder relative to the rest; None: one optimizer for all.
        clip_norm: limit of the gradients' global norm; None: no clipping.
        clip_sum: whether the limit applies to the gradients summed over replicas; else it applies to each replica's
            own, before they are summed.
        lookahead_sync_period: Lookahead around the optimizer: every so many steps, slow weights go
            `lookahead_slow_step_size` of the way to the trained ones, which go on from there; 0: no Lookahead.
        lookahead_slow_step_size: above 0, at most 1.
        average_decay: of the moving average of the weights, see `WeightAverages`; 0: no average.

    Raises:
        ConfigError: a value is out of range.
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

    def __post_init__(self) -> None:
        refuse(choice_problems(f"{_WHERE}.optimizer", self.optimizer, OPTIMIZERS))

    @classmethod
    def from_options(cls, options: config_pb2.SolverOptions, batch_size: int | None = None) -> SolverSettings:
        """The settings that a config's `trainer_options.solver_options` ask for.

        Args:
            options: of the config.
            batch_size: images of one update, over all replicas; learning rates are scaled by it if the options give a
                reference batch size. None leaves them as they are.

        Raises:
            ConfigError: a value is out of range.
        """
        refuse(range_problems(options, _WHERE))
        factor = 1.0 if batch_size is None else learning_rate_factor(options, batch_size)
        clips = options.use_gradient_clipping and options.clip_gradient_norm > 0
        has_multiplier = options.HasField("backbone_learning_rate_multiplier")
        return cls(
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

    @property
    def decays(self) -> bool:
        """Whether any variable decays."""
        return self.optimizer in DECAYING_OPTIMIZERS and self.weight_decay != 0


def learning_rate_factor(options: config_pb2.SolverOptions, batch_size: int) -> float:
    """The factor for a config's learning rates if they were chosen for another batch size.

    Args:
        options: of the config; with a reference batch size R the factor is b / R (linear scaling) or its square root;
            without one it is 1.
        batch_size: b, the images of one update, over all replicas.
    """
    reference = options.learning_rate_reference_batch_size
    if not reference:
        return 1.0
    ratio = batch_size / reference
    is_linear = options.learning_rate_scaling == trainer_pb2.SolverOptions.LINEAR
    return ratio if is_linear else math.sqrt(ratio)
