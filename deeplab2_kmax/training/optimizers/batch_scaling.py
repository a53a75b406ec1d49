"""The learning rate for another batch size than the one it was chosen for."""

from __future__ import annotations

import math

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2, trainer_pb2


def learning_rate_factor(options: config_pb2.SolverOptions, batch_size: int) -> float:
    """What to multiply the learning rates of a config by.

    Args:
        options: with reference batch size R: b / R (linear) or its square root; 1 where no reference is given.
        batch_size: b, the images one update of the weights sees, over all replicas.

    Raises:
        ConfigError: the reference is negative.
    """
    reference = options.learning_rate_reference_batch_size
    if reference < 0:
        raise ConfigError(f"learning_rate_reference_batch_size: expected 0 (off) or more, came {reference}")
    if not reference:
        return 1.0
    ratio = batch_size / reference
    is_linear = options.learning_rate_scaling == trainer_pb2.SolverOptions.LINEAR
    return ratio if is_linear else math.sqrt(ratio)
