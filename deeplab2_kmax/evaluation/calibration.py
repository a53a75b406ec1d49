"""Calibration: whether what a model is 80 % sure of is right 80 % of the time, for pixels and for segments.

A pixel's confidence is its mask probability times the class probability of its mask; it is right if the class of its
segment is the true one. Pixels that are void in truth or in the prediction do not count. A segment's confidence is the
score by which average precision ranks it, the product of the means of both over its pixels; it is right if it matches a
true segment as in panoptic quality. Segments that void or crowds excuse do not count.

Confidences are sorted into bins of equal width (a reliability diagram). The expected calibration error (Guo et al.,
ICML 2017, arXiv:1706.04599) is the mean distance between confidence and accuracy of the bins, weighted by what is in
them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.compared_maps import ComparedMaps
from deeplab2_kmax.evaluation.metric import TableBlock, packed, percent, unpacked
from deeplab2_kmax.evaluation.panoptic_quality import match_segments

BINS = 15


@dataclasses.dataclass(frozen=True)
class Reliability:
    """A reliability diagram.

    Attributes:
        count: float64 [15], how many there are with a confidence in each bin; the bins have equal widths.
        confidence: float64 [15], the sum of their confidences.
        right: float64 [15], how many of them are right.
    """

    count: np.ndarray
    confidence: np.ndarray
    right: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, 0..1; 0 of nothing."""
        return float(np.abs(self.confidence - self.right).sum() / max(self.count.sum(), 1.0))

    @property
    def mean_confidence(self) -> float:
        """The mean over all, 0..1; 0 of nothing."""
        return float(self.confidence.sum() / max(self.count.sum(), 1.0))

    @property
    def accuracy(self) -> float:
        """The share of all that is right, 0..1; 0 of nothing."""
        return float(self.right.sum() / max(self.count.sum(), 1.0))

    def as_dict(self) -> dict[str, Any]:
        """The diagram for a JSON file; means of empty bins are null."""
        bins = []
        for number, (count, confidence, right) in enumerate(zip(self.count, self.confidence, self.right)):
            means = (float(confidence / count), float(right / count)) if count else (None, None)
            edges = {"from": number / BINS, "to": (number + 1) / BINS}
            bins.append({**edges, "count": int(count), "confidence": means[0], "accuracy": means[1]})
        return {"ece": self.error, "confidence": self.mean_confidence, "accuracy": self.accuracy, "bins": bins}


@dataclasses.dataclass(frozen=True)
class CalibrationResult:
    """Calibration of a model on a data set.

    Attributes:
        pixels: that of pixels' classes.
        segments: that of segments.
    """

    pixels: Reliability
    segments: Reliability

    def as_scalars(self) -> dict[str, float]:
        """Scalars for TensorBoard: `evaluation/calibration/ECE_pixels` and `ECE_segments`, 0..1."""
        errors = {"ECE_pixels": self.pixels.error, "ECE_segments": self.segments.error}
        return {f"evaluation/calibration/{name}": value for name, value in errors.items()}

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON file: "pixels" and "segments"."""
        return {"pixels": self.pixels.as_dict(), "segments": self.segments.as_dict()}

    def as_block(self) -> TableBlock:
        """The part of the table."""
        rows: list[tuple[str, ...]] = [
            (name, percent(each.error), percent(each.mean_confidence), percent(each.accuracy))
            for name, each in (("pixels", self.pixels), ("segments", self.segments))
        ]
        return TableBlock(("calibration", "ECE", "sure", "right"), rows)


class Calibration:
    """Accumulates reliability diagrams: sums, as large for any number of images.

    Args:
        descriptor: the data set.
    """

    def __init__(self, descriptor: DatasetDescriptor) -> None:
        self.descriptor = descriptor
        # Of pixels and of segments: count, confidence, right.
        self._sums = np.zeros((2, 3, BINS))

    def update(self, maps: ComparedMaps) -> None:
        """Adds one image.

        Raises:
            DataError: it has no scores, or an id's class is not in the data set. Nothing is added.
        """
        if maps.instance_scores is None or maps.semantic_scores is None:
            raise DataError(f"{maps.name}: expected maps of instance scores and semantic scores, got none")
        truth, prediction = maps.segments(self.descriptor)
        ids, _, scores = maps.scored_segments
        confidence = scores[np.searchsorted(ids, maps.overlaps.predicted_ids, sorter=np.argsort(ids))]
        matches = match_segments(truth, prediction, maps.overlaps.pixels)
        right = matches.matched.any(0)
        counts = right | matches.false_positive

        true_classes, predicted_classes = (
            each // self.descriptor.label_divisor for each in (maps.truth, maps.prediction)
        )
        known = (true_classes != self.descriptor.ignore_label) & (predicted_classes != self.descriptor.ignore_label)
        of_pixels = (maps.instance_scores * maps.semantic_scores)[known]
        self._sums[0] += _binned(of_pixels, (true_classes == predicted_classes)[known])
        self._sums[1] += _binned(confidence[counts], right[counts])

    def merge(self, content: bytes) -> None:
        """Adds what another Calibration has accumulated over other images of the same data set, as its `to_bytes`."""
        self._sums += unpacked(content)["sums"]

    def to_bytes(self) -> bytes:
        """What has been accumulated, for another worker's `merge`."""
        return packed({"sums": self._sums})

    def result(self) -> CalibrationResult:
        """The diagrams over all images so far."""
        pixels, segments = (Reliability(*sums.copy()) for sums in self._sums)
        return CalibrationResult(pixels, segments)


def _binned(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The sums of `Reliability`, float64 [3, 15], of confidences [K] and whether each is right."""
    # 1 belongs to the last bin.
    places = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return np.stack([np.bincount(places, weights, BINS) for weights in (None, confidence, right)])
