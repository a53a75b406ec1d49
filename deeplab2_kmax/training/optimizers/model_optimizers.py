"""The optimizers of a model: one for all of its variables, or a second one for its pixel encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from deeplab2_kmax.training.optimizers.ema import WeightAverages
from deeplab2_kmax.training.optimizers.factory import build_optimizer
from deeplab2_kmax.training.optimizers.lookahead import renew_slow_weights
from deeplab2_kmax.training.optimizers.param_groups import BACKBONE, MAIN, Group, assign_groups
from deeplab2_kmax.training.optimizers.settings import SolverSettings


@dataclasses.dataclass(frozen=True)
class Optimizers:
    """The optimizers of a model; the pixel encoder has one of its own if its learning rate differs.

    Attributes:
        main: updates everything `backbone` does not.
        backbone: updates the pixel encoder's variables, or None.
        groups: each trained variable with the optimizer that updates it.
        averages: moving averages of the weights, updated with them; or None.
        clip_norm: limit of the gradients' global norm, or None.
        clip_sum: whether the limit applies to the gradients summed over replicas; else to each replica's own.
    """

    main: tf.keras.optimizers.legacy.Optimizer
    backbone: tf.keras.optimizers.legacy.Optimizer | None = None
    groups: Sequence[tuple[tf.Variable, Group]] = ()
    averages: WeightAverages | None = None
    clip_norm: float | None = None
    clip_sum: bool = False

    @property
    def checkpoint_items(self) -> Mapping[str, tf.keras.optimizers.legacy.Optimizer]:
        """The optimizers by the names they have in a checkpoint."""
        return {MAIN: self.main} if self.backbone is None else {MAIN: self.main, BACKBONE: self.backbone}

    def start(self) -> None:
        """Makes slow weights and averages, which start as copies of the weights, equal to what has been loaded since.

        A new run calls it once its first weights are there; otherwise they would be drawn back to the random ones.
        """
        for optimizer, group in self.split((None, variable) for variable, _ in self.groups):
            renew_slow_weights(optimizer, [variable for _, variable in group])
        if self.averages is not None:
            self.averages.start()

    def learning_rate(self, step: tf.Tensor | int) -> tf.Tensor:
        """The learning rate of `main` at `step`, scalar float32."""
        return self.main.learning_rate(step)

    def learning_rates(self, step: tf.Tensor | int) -> dict[str, tf.Tensor]:
        """The learning rates at `step`, scalars float32, by their names in TensorBoard.

        These are `learning_rate`, and `backbone_learning_rate` if the pixel encoder has an optimizer of its own.
        """
        rates = {"learning_rate": self.learning_rate(step)}
        if self.backbone is not None:
            rates["backbone_learning_rate"] = self.backbone.learning_rate(step)
        return rates

    def apply(
        self, gradients_and_variables: Iterable[tuple[tf.Tensor, tf.Variable]], *, aggregated: bool = False
    ) -> None:
        """Updates the variables and their averages once, in replica context.

        Args:
            gradients_and_variables: this replica's gradients, to be summed over replicas.
            aggregated: whether the gradients have been summed already, and so are the same on every replica.
        """
        for optimizer, group in self.split(gradients_and_variables):
            optimizer.apply_gradients(group, experimental_aggregate_gradients=not aggregated)
        if self.averages is not None:
            self.averages.update()

    def split(
        self, pairs: Iterable[tuple[Any, tf.Variable]]
    ) -> Iterator[tuple[tf.keras.optimizers.legacy.Optimizer, list[tuple[Any, tf.Variable]]]]:
        """Yields each optimizer with the (gradient, variable) pairs whose variables it updates."""
        # By identity: variables cannot be compared or hashed.
        group_of = {id(variable): group for variable, group in self.groups}
        pairs = list(pairs)
        for name, optimizer in self.checkpoint_items.items():
            mine = [pair for pair in pairs if group_of[id(pair[1])].optimizer == name]
            if mine:
                yield optimizer, mine


def build_optimizers(
    settings: SolverSettings,
    variables: Iterable[tf.Variable],
    backbone_variables: Sequence[tf.Variable] = (),
    averages: WeightAverages | None = None,
) -> Optimizers:
    """The optimizers of a model, with their variables created; call it in the strategy's scope.

    Args:
        settings: how weights are updated.
        variables: all trainable variables of the model.
        backbone_variables: those of its pixel encoder.
        averages: to be updated with the variables.
    """
    groups = assign_groups(settings, variables, backbone_variables)
    # One optimizer for each rate that occurs.
    multipliers = {group.optimizer: group.rate_multiplier for _, group in groups}
    backbone = build_optimizer(settings, multipliers[BACKBONE]) if BACKBONE in multipliers else None
    optimizers = Optimizers(
        build_optimizer(settings), backbone, groups, averages, settings.clip_norm, settings.clip_sum
    )
    # By themselves optimizers create their variables in their first step, and a tf.function that creates variables is
    # traced twice. A checkpoint could not be restored completely either.
    for optimizer, pairs in optimizers.split((None, variable) for variable, _ in groups):
        optimizer._create_all_weights([variable for _, variable in pairs])
    return optimizers
