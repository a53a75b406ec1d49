"""Training images as the network sees them, with their labels, as pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.visualization import comparison

_IMAGE, _LABEL = "image", "panoptic_gt"


class TrainingPictures:
    """Shows the first images of a batch, augmented and cut as they are, every so many steps.

    Args:
        descriptor: the data set.
        count: how many images to show; at most those of one replica.
        interval: steps between two shows. They happen at ends of loops; the first does at the end of the first one.
        fetch: takes a batch from an iterator.
    """

    def __init__(
        self, descriptor: DatasetDescriptor, count: int, interval: int, fetch: Callable[[Iterator], Mapping] = next
    ):
        self._descriptor = descriptor
        self._count = count
        self._interval = interval
        self._fetch = fetch
        self._batch: Mapping | None = None
        self._due: int | None = None

    def fetch(self, iterator: Iterator) -> Mapping:
        """Takes a batch from the iterator, and keeps it until the next."""
        self._batch = self._fetch(iterator)
        return self._batch

    def write(self, step: int) -> bool:
        """Writes the pictures to the default summary writer where they are due; returns whether they were.

        Args:
            step: the current one; pictures are filed under it.
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
