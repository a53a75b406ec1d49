"""Pictures of true and predicted segments for TensorBoard: the first images of every evaluation."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality
from deeplab2_kmax.names import without_ending
from deeplab2_kmax.visualization import comparison


class SummaryPictures:
    """Writes pictures to the default summary writer, under `panoptic/<number>_<image>`.

    Evaluation reads images in a fixed order, so each step shows the same ones, and TensorBoard's slider compares steps.

    Args:
        descriptor: the data set.
        count: how many images to show.
        step: int64 scalar variable; pictures are written for the step that it holds.
    """

    def __init__(self, descriptor: DatasetDescriptor, count: int, step: tf.Variable):
        self._descriptor = descriptor
        self._count = count
        self._step = step
        self._next = 0

    def begin(self) -> None:
        """Starts an evaluation: the next image is number 0."""
        self._next = 0

    def wants_picture(self) -> bool:
        """Whether the next image is one to show."""
        return self._next < self._count

    def add(self, name: str, image: np.ndarray, truth: np.ndarray | None, prediction: np.ndarray) -> None:
        """Writes the picture of the next image.

        Args:
            name: its file name.
            image: [h, w, 3] RGB 0..255 of any size.
            truth: [H, W] panoptic ids of the labels, or None; `prediction` then stands alone.
            prediction: [H, W] panoptic ids that the model predicted.
        """
        title = "prediction"
        maps: dict[str, np.ndarray] = {}
        if truth is not None:
            maps["truth"] = truth
            quality = PanopticQuality(self._descriptor)
            quality.update(truth, prediction)
            title = f"prediction, PQ {100 * quality.result().all.pq:.0f} on this image"
        maps[title] = prediction
        picture = comparison(image, maps, self._descriptor)
        stem = without_ending(os.path.basename(name))
        tf.summary.image(f"panoptic/{self._next:03d}_{stem}", picture[np.newaxis], step=self._step)
        self._next += 1
