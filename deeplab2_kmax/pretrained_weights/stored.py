"""Weights in a file, by the checkpoint keys of the encoder they are for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """One array of a file that has not been read yet.

    Attributes:
        shape: as it will be read.
        read: reads it; float32.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


StoredWeights = dict[str, StoredWeight]
