"""What training writes for TensorBoard: curves at the end of each loop, and some of its images with their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import orbit
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.training.reporting.loggers.background import Loggers
from deeplab2_kmax.training.reporting.step_clock import StepClock
from deeplab2_kmax.visualization import comparison

_IMAGE, _LABEL = "image", "panoptic_gt"
Batch = Mapping[str, tf.Tensor]


class TrainingPictures:
    """Shows the first images of a batch, augmented and cropped as the network sees them, every so many steps.

    Args:
        descriptor: the data set.
        count: how many images to show; at most those of one replica.
        interval: steps between two sets of pictures. They are written at ends of loops, first at that of the first one.
        fetch: takes a batch from an iterator.
    """

    def __init__(
        self,
        descriptor: DatasetDescriptor,
        count: int,
        interval: int,
        fetch: Callable[[Iterator[Batch]], Batch] = next,
    ):
        self._descriptor = descriptor
        self._count = count
        self._interval = interval
        self._fetch = fetch
        self._batch: Batch | None = None
        self._due: int | None = None

    def fetch(self, iterator: Iterator[Batch]) -> Batch:
        """Takes a batch from the iterator, and keeps it until the next one."""
        self._batch = self._fetch(iterator)
        return self._batch

    def write(self, step: int) -> bool:
        """Writes the pictures to the default summary writer if they are due.

        Args:
            step: the current one; pictures are filed under it.

        Returns:
            Whether they were due.
        """
        is_due = self._due is None or step >= self._due
        if self._batch is None or not is_due or not tf.summary.should_record_summaries():
            return False
        self._due = step + self._interval
        strategy = tf.distribute.get_strategy()
        images, labels = (
            strategy.experimental_local_results(self._batch[name])[0][: self._count].numpy()
            for name in (_IMAGE, _LABEL)
        )
        for index, (image, label) in enumerate(zip(images, labels)):
            picture = comparison(image, {"label": label}, self._descriptor)
            tf.summary.image(f"training/{index:03d}", picture[np.newaxis], step=step)
        return True


class TrainingSummaries(orbit.utils.SummaryManager):
    """Writes the logs of a loop, its times, and pictures when they are due.

    Args:
        folder: of the event files; None writes nothing.
        global_step: int64 scalar variable; everything is filed under its value.
        clock: has the times of the loop that has just ended.
        pictures: None writes none.
        loggers: get the same figures.
    """

    def __init__(
        self,
        folder: str | None,
        global_step: tf.Variable,
        clock: StepClock,
        pictures: TrainingPictures | None = None,
        loggers: Loggers | None = None,
    ):
        super().__init__(folder, tf.summary.scalar, global_step=global_step)
        self._step = global_step
        self._clock = clock
        self._pictures = pictures
        self._loggers = loggers or Loggers()

    @property
    def fetch(self) -> Callable[[Iterator[Batch]], Batch]:
        """Takes a batch from an iterator; the clock measures that, and the pictures keep the batch."""
        return self._clock.fetch if self._pictures is None else self._pictures.fetch

    def write_summaries(self, summary_dict: Mapping[str, tf.Tensor]) -> None:
        """Writes what orbit hands over at the end of a loop, and adds times and pictures."""
        # The clock's `steps_per_second` replaces orbit's, which counts the time of evaluations as training.
        times = self._clock.last.as_scalars() if self._clock.last else {}
        super().write_summaries({**summary_dict, **times})
        figures = {**summary_dict, **times}
        self._loggers.scalars(int(self._step.numpy()), {f"train/{name}": figures[name] for name in figures})
        if self._pictures is not None:
            with self.summary_writer().as_default():
                self._pictures.write(int(self._step.numpy()))
