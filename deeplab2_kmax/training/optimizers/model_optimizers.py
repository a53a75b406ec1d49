"""The optimizers of a model: one for all of it, or one more for its pixel encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import tensorflow as tf

from deeplab2_kmax.training.optimizers.ema import WeightAverages
from deeplab2_kmax.training.optimizers.factory import build_optimizer
from deeplab2_kmax.training.optimizers.param_groups import BACKBONE, MAIN, Group, assign_groups
from deeplab2_kmax.training.optimizers.settings import SolverSettings


@dataclasses.dataclass(frozen=True)
class Optimizers:
    """The optimizer of the model, and one of its own for the pixel encoder where its rate differs.

    Attributes:
        main: updates everything `backbone` does not.
        backbone: updates the pixel encoder's variables, or None.
        groups: each trained variable with the optimizer that updates it.
        averages: of the weights, updated with them; or None.
        clip_norm: limit of the gradients' global norm, or None.
        clip_sum: whether that is the norm of the gradients summed over replicas, or of each replica's own.
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

    def learning_rate(self, step) -> tf.Tensor:
        """Scalar float32: the rate of `main` at `step`."""
        return self.main.learning_rate(step)

    def learning_rates(self, step) -> dict[str, tf.Tensor]:
        """Scalars float32 at `step` by their names in TensorBoard: `learning_rate`, and `backbone_learning_rate` where
        the pixel encoder has one of its own."""
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
            aggregated: the gradients are summed already, and the same on every replica.
        """
        for optimizer, group in self.split(gradients_and_variables):
            optimizer.apply_gradients(group, experimental_aggregate_gradients=not aggregated)
        if self.averages is not None:
            self.averages.update()

    def split(self, pairs):
        """Yields each optimizer with those of the (gradient, variable) pairs it is for."""
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
    """The optimizers of a model, with their state; call it in the strategy's scope.

    Args:
        settings: how weights are updated.
        variables: all trainable variables of the model.
        backbone_variables: those of its pixel encoder.
        averages: updated with the variables.

    Raises:
        ConfigError: an optimizer of tensorflow-addons is asked for, which is not installed.
    """
    groups = assign_groups(settings, variables, backbone_variables)
    # One optimizer for each rate that occurs.
    multipliers = {group.optimizer: group.rate_multiplier for _, group in groups}
    backbone = build_optimizer(settings, multipliers[BACKBONE]) if BACKBONE in multipliers else None
    optimizers = Optimizers(
        build_optimizer(settings), backbone, groups, averages, settings.clip_norm, settings.clip_sum
    )
    # Left to themselves optimizers make their variables in their first step, and a tf.function that makes variables is
    # traced twice.
    for optimizer, pairs in optimizers.split((None, variable) for variable, _ in groups):
        optimizer._create_all_weights([variable for _, variable in pairs])
    return optimizers
