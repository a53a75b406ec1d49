"""What training writes for TensorBoard at the end of each loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import orbit
import tensorflow as tf

from deeplab2_kmax.training.reporting.pictures import TrainingPictures
from deeplab2_kmax.training.reporting.step_clock import StepClock


class TrainingSummaries(orbit.utils.SummaryManager):
    """Writes the logs of a loop, its times, and pictures where they are due.

    The clock's `steps_per_second` takes the place of orbit's, which counts evaluations as training.

    Args:
        folder: of the event files; None writes nothing.
        global_step: int64 scalar variable; all is filed under its value.
        clock: has the times of the loop that has just ended.
        pictures: None: none are wanted.
    """

    def __init__(
        self, folder: str | None, global_step: tf.Variable, clock: StepClock, pictures: TrainingPictures | None = None
    ):
        super().__init__(folder, tf.summary.scalar, global_step=global_step)
        self._step = global_step
        self._clock = clock
        self._pictures = pictures

    @property
    def fetch(self) -> Callable[[Iterator], Mapping]:
        """Takes a batch from an iterator, seen by clock and pictures."""
        return self._clock.fetch if self._pictures is None else self._pictures.fetch

    def write_summaries(self, summary_dict: Mapping[str, tf.Tensor]) -> None:
        """Writes what orbit hands over at the end of a loop, and adds the rest."""
        times = self._clock.last.as_scalars() if self._clock.last else {}
        super().write_summaries({**summary_dict, **times})
        if self._pictures is not None:
            with self.summary_writer().as_default():
                self._pictures.write(int(self._step.numpy()))
