"""What happens where a loss or a gradient is not finite."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.training.step.step import StepReport, TrainStep

# Entry of a training batch: [B] strings, which no device can take.
RECORD_NAMES = "image_name"
_NAMED_AT_MOST = 5
_RECORDS_AT_MOST = 32


def without_record_names(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch as devices take it."""
    return {name: values for name, values in batch.items() if name != RECORD_NAMES}


@dataclasses.dataclass(frozen=True)
class NonFinitePolicy:
    """When training stops.

    Attributes:
        in_a_row: so many steps in a row that are not finite; those before the last are skipped.
        skips: whether steps may be skipped at all; False: `in_a_row` is 1.
    """

    in_a_row: int = 1
    skips: bool = False

    @classmethod
    def from_options(cls, options: config_pb2.TrainerOptions) -> NonFinitePolicy:
        """The policy a config's `trainer_options` ask for.

        Raises:
            ConfigError: a limit below 1.
        """
        if options.non_finite_policy == options.STOP:
            return cls()
        if options.max_skipped_in_a_row < 1:
            raise ConfigError(f"max_skipped_in_a_row: expected 1 or more, came {options.max_skipped_in_a_row}")
        return cls(options.max_skipped_in_a_row, skips=True)


STOP = NonFinitePolicy()


@dataclasses.dataclass(frozen=True)
class NonFinite:
    """A step that could not be made.

    Attributes:
        step: its number, counted from 1.
        terms: mean of each loss term over the global batch.
        gradients: names of the weights whose gradient is not finite.
        weights: how many weights have a gradient.
        batch: this process' share of the batch, [B, ...] arrays.
    """

    step: int
    terms: Mapping[str, float]
    gradients: Sequence[str]
    weights: int
    batch: Mapping[str, np.ndarray]

    @classmethod
    def from_report(cls, number: int, step: TrainStep, report: StepReport, batch: Mapping[str, np.ndarray]):
        """What `report` says of the step with this number."""
        variables = step.model.trainable_variables
        return cls(
            step=number,
            terms={name: float(value) for name, value in zip(step.loss_names, report.terms.numpy())},
            gradients=[v.name for v, ok in zip(variables, np.isfinite(report.squares.numpy())) if not ok],
            weights=len(variables) - len(step.without_gradient),
            batch=batch,
        )

    @property
    def records(self) -> list[str]:
        """Names of the batch's images, where it has them."""
        return [name.decode(errors="replace") for name in self.batch.get(RECORD_NAMES, [])]

    @property
    def culprits(self) -> str:
        """The terms that are not finite; where all are, the gradients."""
        terms = [name for name, value in self.terms.items() if not math.isfinite(value)]
        if terms:
            return ", ".join(terms)
        named = f" of {_some(self.gradients, _NAMED_AT_MOST)}" if self.gradients else ""
        return f"the gradient ({len(self.gradients)} of {self.weights} weights){named}"

    def message(self, policy: NonFinitePolicy) -> str:
        """For the user: what happened, and what helps."""
        in_a_row = f" after {policy.in_a_row} such steps in a row" if policy.skips else ""
        records = f" Records: {_some(self.records, _RECORDS_AT_MOST)}." if self.records else ""
        return (
            f"training stopped at step {self.step}{in_a_row}: not finite: {self.culprits}.{records} No weight was"
            " updated with it; the checkpoints written before are sound. A lower base_learning_rate, a longer warm-up"
            " or use_gradient_clipping usually help"
        )


def _some(names: Sequence[str], at_most: int) -> str:
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
