"""A table of all variables of a model and how each is updated, as `--print_variables` shows it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import tensorflow as tf

from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.model import build_model
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.training.optimizers.param_groups import Group, assign_groups
from deeplab2_kmax.training.optimizers.settings import SolverSettings
from deeplab2_kmax.wording import counted

# The short columns come first, so that lines stay readable where the terminal breaks them.
_HEAD = ("optimizer", "rate", "decays", "shape", "checkpoint key", "variable")
_NOT_TRAINED = ("not trained", "", "")


@dataclasses.dataclass(frozen=True)
class VariableRow:
    """One variable of a model.

    Attributes:
        key: its key in DeepLab2's checkpoints.
        name: its name in TensorFlow.
        shape: its shape.
        group: how it is updated; None: it is not trained.
    """

    key: str
    name: str
    shape: tuple[int, ...]
    group: Group | None

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


def variable_table(model: tf.keras.Model, settings: SolverSettings) -> list[VariableRow]:
    """All variables of `model` (from `build_model`), in the model's order."""
    groups = assign_groups(settings, model.trainable_variables, model.backbone_variables)
    group_of = {id(variable): group for variable, group in groups}
    return [
        VariableRow(key, variable.name, tuple(variable.shape), group_of.get(id(variable)))
        for key, variable in checkpoint_variables(model).items()
    ]


def variable_listing(config: config_pb2.ExperimentOptions) -> str:
    """The variables of an experiment and their totals, as text.

    Raises:
        ConfigError: the config cannot be built.
    """
    settings = SolverSettings.from_options(
        config.trainer_options.solver_options, config.train_dataset_options.batch_size
    )
    rows = variable_table(build_model(config), settings)
    return "\n".join([*_aligned([_HEAD, *map(_cells, rows)]), "", _solver(settings), *_totals(rows)])


def _solver(settings: SolverSettings) -> str:
    parts = [settings.optimizer, f"base learning rate {settings.schedule.base_learning_rate:g}"]
    if settings.decays:
        parts.append(f"weight decay {settings.weight_decay:g}")
    if settings.lookahead_sync_period:
        parts.append(f"Lookahead every {counted(settings.lookahead_sync_period, 'step')}")
    return ", ".join(parts)


def _cells(row: VariableRow) -> tuple[str, ...]:
    shape = "x".join(map(str, row.shape)) or "scalar"
    group = row.group
    how = (group.optimizer, f"x{group.rate_multiplier:g}", "yes" if group.decays else "no") if group else _NOT_TRAINED
    return *how, shape, row.key, row.name


def _totals(rows: Sequence[VariableRow]) -> list[str]:
    parts: dict[str, list[VariableRow]] = {"all": list(rows)}
    for row in rows:
        trained = (
            f"trained by `{row.group.optimizer}` at x{row.group.rate_multiplier:g}" if row.group else "not trained"
        )
        parts.setdefault(trained, []).append(row)
    parts["that decay"] = [row for row in rows if row.group and row.group.decays]
    return _aligned(
        [
            (title, counted(len(of), "variable"), counted(sum(row.size for row in of), "weight"))
            for title, of in parts.items()
        ]
    )


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
