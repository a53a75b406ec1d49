"""What happens where a loss or a gradient is not finite: when training stops, and what the user is told."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.training.step.step import StepReport, TrainStep
from deeplab2_kmax.wording import counted, some_of

# Entry of a training batch: [B] strings.
RECORD_NAMES = "image_name"
_NAMED_AT_MOST = 5
_RECORDS_AT_MOST = 32


def without_record_names(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch without the names of its records: strings cannot go to GPUs or TPUs, nor through XLA."""
    return {name: values for name, values in batch.items() if name != RECORD_NAMES}


@dataclasses.dataclass(frozen=True)
class NonFinitePolicy:
    """When training stops because of steps that are not finite.

    Attributes:
        in_a_row: training stops at this many such steps in a row; those before the last one are skipped.
        skips: whether steps may be skipped at all; if not, `in_a_row` is 1.
    """

    in_a_row: int = 1
    skips: bool = False

    @classmethod
    def from_options(cls, options: config_pb2.TrainerOptions) -> NonFinitePolicy:
        """The policy that a config's `trainer_options` ask for."""
        if options.non_finite_policy == options.STOP:
            return cls()
        return cls(options.max_skipped_in_a_row, skips=True)


STOP = NonFinitePolicy()


@dataclasses.dataclass(frozen=True)
class NonFinite:
    """A step at which training stops because it is not finite.

    Attributes:
        step: its number, counted from 1.
        terms: mean of each loss term over the global batch.
        gradients: names of the weights whose gradient is not finite.
        weights: how many weights have a gradient.
        batch: this process's share of the batch, [B, ...] arrays.
        statistics: names of the moving statistics that are not finite.
    """

    step: int
    terms: Mapping[str, float]
    gradients: Sequence[str]
    weights: int
    batch: Mapping[str, np.ndarray]
    statistics: Sequence[str] = ()

    @classmethod
    def from_report(
        cls, number: int, step: TrainStep, report: StepReport, batch: Mapping[str, np.ndarray]
    ) -> NonFinite:
        """What the report of a step says.

        Args:
            number: the number of the step, counted from 1.
            step: made the report.
            report: of a step that is not finite.
            batch: this process's share of the batch.
        """
        variables, statistics = step.model.trainable_variables, step.model.non_trainable_variables
        return cls(
            step=number,
            terms={name: float(value) for name, value in zip(step.loss_names, report.terms.numpy())},
            gradients=[v.name for v, ok in zip(variables, np.isfinite(report.squares.numpy())) if not ok],
            statistics=[v.name for v, ok in zip(statistics, np.isfinite(report.statistics.numpy())) if not ok],
            weights=len(variables) - len(step.without_gradient),
            batch=batch,
        )

    @property
    def records(self) -> list[str]:
        """Names of the batch's images; empty if the batch has none."""
        return [name.decode(errors="replace") for name in self.batch.get(RECORD_NAMES, [])]

    @property
    def culprits(self) -> str:
        """The loss terms that are not finite; if all are finite, the moving statistics or gradients that are not."""
        terms = [name for name, value in self.terms.items() if not math.isfinite(value)]
        if terms:
            return ", ".join(terms)
        if self.statistics and not self.gradients:
            return f"the moving statistics {some_of(self.statistics, _NAMED_AT_MOST)}"
        # The squares of finite gradients may overflow in their sum; then no single gradient is to blame.
        named = f" of {some_of(self.gradients, _NAMED_AT_MOST)}" if self.gradients else ""
        return f"the gradient ({len(self.gradients)} of {counted(self.weights, 'weight')}){named}"

    def message(self, policy: NonFinitePolicy) -> str:
        """Tells the user what happened and what usually helps."""
        in_a_row = f" after {counted(policy.in_a_row, 'such step')} in a row" if policy.skips else ""
        records = f" Records: {some_of(self.records, _RECORDS_AT_MOST)}." if self.records else ""
        return (
            f"training stopped at step {self.step}{in_a_row}: not finite: {self.culprits}.{records} No weight was"
            " updated with it; the checkpoints written before are sound. A lower base_learning_rate, a longer warm-up"
            " or use_gradient_clipping usually help"
        )
