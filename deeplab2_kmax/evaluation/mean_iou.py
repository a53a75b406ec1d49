"""Mean intersection over union of semantic maps."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError


@dataclasses.dataclass(frozen=True)
class MeanIoUResult:
    """Intersection over union of the classes of a data set.

    Attributes:
        descriptor: the data set; the arrays below are in the order of `descriptor.classes`.
        iou: float64 [C], intersection over union of each class, 0..1; 0 where the class does not
            occur.
        occurs: bool [C], whether the class occurs in truth or prediction.
        pixels: float64 [C], labelled pixels of each class.
    """

    descriptor: DatasetDescriptor
    iou: np.ndarray
    occurs: np.ndarray
    pixels: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over the classes that occur, 0..1; 0 if none does."""
        return float(self.iou[self.occurs].mean()) if self.occurs.any() else 0.0

    @property
    def frequency_weighted(self) -> float:
        """Mean over classes, each weighted by the share of its pixels among all that are labelled; 0 if none is."""
        return float(self.iou @ self.pixels / max(self.pixels.sum(), 1.0))

    def as_scalars(self) -> dict[str, float]:
        """Scalars for TensorBoard: DeepLab2's `evaluation/iou/IoU`, and `fwIoU`, the frequency-weighted mean."""
        return {"evaluation/iou/IoU": self.mean, "evaluation/iou/fwIoU": self.frequency_weighted}

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON file: "mean", "frequency_weighted", "classes" (that occur) and "per_class", 0..1."""
        per_class = {
            c.name: float(iou) for c, iou, occurs in zip(self.descriptor.classes, self.iou, self.occurs) if occurs
        }
        means = {"mean": self.mean, "frequency_weighted": self.frequency_weighted}
        return {**means, "classes": int(self.occurs.sum()), "per_class": per_class}


class MeanIoU:
    """Accumulates a confusion matrix over images.

    The matrix is a sum over images, so workers can share a data set and add theirs up.

    Args:
        descriptor: the data set.
    """

    def __init__(self, descriptor: DatasetDescriptor):
        self.descriptor = descriptor
        self._classes = len(descriptor.classes)
        # From class id to row and column of the matrix. Void has the last ones; -1 marks ids that no class has.
        self._index = np.full(max(descriptor.num_classes, descriptor.ignore_label + 1), -1, np.int64)
        self._index[[c.id for c in descriptor.classes]] = np.arange(self._classes)
        self._index[descriptor.ignore_label] = self._classes
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._confusion = np.zeros((self._classes + 1, self._classes + 1), np.int64)

    @property
    def state(self) -> np.ndarray:
        """A copy of the confusion matrix: pixels, int64 [C + 1, C + 1], by true and predicted class; void is last."""
        return self._confusion.copy()

    def merge(self, other: MeanIoU | np.ndarray) -> None:
        """Adds what another MeanIoU, or its `state`, has accumulated over other images of the same data set."""
        self._confusion += other.state if isinstance(other, MeanIoU) else np.asarray(other)

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Adds the pixels of one image or of several.

        Args:
            truth: class ids, integer of any shape; pixels of the ignore label are left out.
            prediction: class ids of the same shape; the ignore label counts as a wrong answer.

        Raises:
            DataError: shapes differ, or a class id is not in the data set. Nothing is added.
        """
        truth, prediction = np.asarray(truth), np.asarray(prediction)
        if truth.shape != prediction.shape:
            raise DataError(
                "expected semantic maps of one shape; "
                f"got truth {list(truth.shape)} and prediction {list(prediction.shape)}"
            )
        rows, columns = self._indices(truth, "truth"), self._indices(prediction, "prediction")
        side = self._classes + 1
        # A pair of classes as one number: one count over all pixels fills the matrix.
        self._confusion += np.bincount(rows * side + columns, minlength=side * side).reshape(side, side)

    def result(self) -> MeanIoUResult:
        """The IoU over all images so far."""
        # The last row, pixels that are void in truth, is left out. The last column stays: a pixel predicted as void was
        # missed, and belongs to the union of its true class.
        confusion = self._confusion[:-1].astype(np.float64)
        intersection = np.diagonal(confusion)
        union = confusion.sum(1) + confusion.sum(0)[:-1] - intersection
        iou = intersection / np.maximum(union, 1)
        return MeanIoUResult(self.descriptor, iou, union > 0, confusion.sum(1))

    def _indices(self, labels: np.ndarray, where: str) -> np.ndarray:
        """Row or column of each label, int64 [pixels]; `where` is what messages call the map."""
        labels = labels.reshape(-1)
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"{where}: expected integer class ids, got {labels.dtype}")
        # Ids outside the table are clipped, so that the look-up succeeds and the check below can name them.
        inside = np.clip(labels, 0, len(self._index) - 1)
        indices = self._index[inside]
        wrong = (indices < 0) | (inside != labels)
        if wrong.any():
            raise DataError(f"{where}: class {labels[wrong][0]} is not in data set {self.descriptor.name!r}")
        return indices
