"""What happens where a loss or a gradient is not finite."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from deeplab2_kmax.trainer.step import StepReport, TrainStep

_NAMED_AT_MOST = 5


@dataclasses.dataclass(frozen=True)
class NonFinite:
    """A step that could not be made.

    Attributes:
        step: its number, counted from 1.
        terms: mean of each loss term over the global batch.
        gradients: names of the weights whose gradient is not finite.
        weights: how many weights have a gradient.
    """

    step: int
    terms: dict[str, float]
    gradients: Sequence[str]
    weights: int

    @classmethod
    def from_report(cls, number: int, step: TrainStep, report: StepReport) -> NonFinite:
        """What `report` says of the step with this number."""
        variables = step.model.trainable_variables
        return cls(
            step=number,
            terms={name: float(value) for name, value in zip(step.loss_names, report.terms.numpy())},
            gradients=[v.name for v, ok in zip(variables, np.isfinite(report.squares.numpy())) if not ok],
            weights=len(variables) - len(step.without_gradient),
        )

    @property
    def culprits(self) -> str:
        """The terms that are not finite; where all are, the gradients."""
        terms = [name for name, value in self.terms.items() if not math.isfinite(value)]
        if terms:
            return ", ".join(terms)
        more = ", ..." if len(self.gradients) > _NAMED_AT_MOST else ""
        named = f" of {', '.join(self.gradients[:_NAMED_AT_MOST])}{more}" if self.gradients else ""
        return f"the gradient ({len(self.gradients)} of {self.weights} weights){named}"

    @property
    def message(self) -> str:
        """For the user: what happened, and what helps."""
        return (
            f"training stopped at step {self.step}: not finite: {self.culprits}. No weight was updated with it; the"
            " checkpoints written before are sound. A lower base_learning_rate, a longer warm-up or"
            " use_gradient_clipping usually help"
        )
