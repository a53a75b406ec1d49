"""Weights in a file that are read only when they are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """One array of a file, to be read later.

    Attributes:
        shape: of the array that `read` returns.
        read: reads the array as float32; raises CheckpointError if that fails.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


# By the checkpoint key of the variable that they are for; those of an encoder begin with "encoder/".
StoredWeights = dict[str, StoredWeight]
