"""The modes of a run, by the names that DeepLab2's flag `--mode` gives them.

This file needs no TensorFlow, so that command lines can list the modes without waiting for it.
"""

from __future__ import annotations

import enum

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.wording import did_you_mean


class Mode(str, enum.Enum):
    """What a run does.

    Attributes:
        TRAIN: trains to the last step.
        EVAL: evaluates the latest checkpoint, or initial_checkpoint if there is none, once.
        TRAIN_AND_EVAL: trains, and evaluates every `eval_interval` steps and at the end.
        CONTINUOUS_EVAL: evaluates each checkpoint that another process writes.
    """

    TRAIN = "train"
    EVAL = "eval"
    TRAIN_AND_EVAL = "train_and_eval"
    CONTINUOUS_EVAL = "continuous_eval"

    @classmethod
    def of(cls, name: str) -> Mode:
        """The mode of this name; raises ConfigError if there is none."""
        try:
            return cls(name)
        except ValueError:
            meant = did_you_mean(str(name), MODES)
            raise ConfigError(f"mode: expected one of {', '.join(MODES)}; got {name!r}{meant}") from None

    @property
    def trains(self) -> bool:
        """Whether weights are updated, and so checkpoints written."""
        return self in (Mode.TRAIN, Mode.TRAIN_AND_EVAL)

    @property
    def evaluates(self) -> bool:
        """Whether the evaluation data is read."""
        return self is not Mode.TRAIN


MODES = tuple(mode.value for mode in Mode)
