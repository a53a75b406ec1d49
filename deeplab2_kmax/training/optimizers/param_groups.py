"""Which optimizer updates a variable, how fast it learns relative to the rest, and whether it decays.

`assign_groups` is the only place that decides it: `build_optimizers` builds the optimizers from its answer, and
`variable_table` prints it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

import tensorflow as tf

from deeplab2_kmax.training.optimizers.settings import SolverSettings

# Names that the optimizers have in a checkpoint.
MAIN = "optimizer"
BACKBONE = "backbone_optimizer"
# Kernels decay; biases, normalization parameters, positional tables and cluster centers do not. A replica's copy of a
# variable is named `<variable>/replica_1:0`; it has to decay like the first copy, or the replicas would drift apart.
DECAYED_VARIABLES = r"(kernel|weight)(/replica_\d+)?(:0)?$"


@dataclasses.dataclass(frozen=True)
class Group:
    """How a trained variable is updated.

    Attributes:
        optimizer: "optimizer" or "backbone_optimizer".
        rate_multiplier: its learning rate relative to the schedule's.
        decays: whether weight decay applies.
    """

    optimizer: str
    rate_multiplier: float
    decays: bool


def assign_groups(
    settings: SolverSettings, variables: Iterable[tf.Variable], backbone_variables: Sequence[tf.Variable] = ()
) -> list[tuple[tf.Variable, Group]]:
    """How each trained variable is updated.

    Args:
        settings: how weights are updated.
        variables: all trained variables of the model.
        backbone_variables: those of them that pretrained weights contain: the pixel encoder's.
    """
    multiplier = settings.backbone_multiplier
    # By identity: variables cannot be compared or hashed.
    of_backbone = {id(variable) for variable in backbone_variables}
    groups = []
    for variable in variables:
        decays = settings.decays and bool(re.search(DECAYED_VARIABLES, variable.name))
        if multiplier is not None and id(variable) in of_backbone:
            groups.append((variable, Group(BACKBONE, multiplier, decays)))
        else:
            groups.append((variable, Group(MAIN, 1.0, decays)))
    return groups
