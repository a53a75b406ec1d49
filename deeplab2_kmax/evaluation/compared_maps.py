"""The maps of one image, true and predicted, and what several metrics want to know of them, computed once."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.panoptic_quality import Segments, overlap_table, segments_of


class Overlaps(NamedTuple):
    """The segments of both maps, void among them, and the pixels they share.

    Attributes:
        true_ids: int64 [T], panoptic ids, ascending.
        predicted_ids: int64 [P], the same of the prediction.
        pixels: float64 [T, P], how many pixels a true and a predicted segment share.
    """

    true_ids: np.ndarray
    predicted_ids: np.ndarray
    pixels: np.ndarray


class ScoredSegments(NamedTuple):
    """The segments of a predicted map, void among them, in the order in which its rows show them first.

    Attributes:
        ids: int64 [P], panoptic ids.
        areas: float64 [P], in pixels.
        scores: float64 [P], 0..1.
    """

    ids: np.ndarray
    areas: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ComparedMaps:
    """The maps of one image.

    Attributes:
        truth: panoptic ids, integer [H, W]: class id * label divisor + instance id. A thing class with instance id 0 is
            its crowd region.
        prediction: panoptic ids of the same shape.
        instance_scores: float [H, W], 0..1, the largest mask probability of each pixel; None where there are no scores.
        semantic_scores: float [H, W], 0..1, the class probability of the mask that owns the pixel; or None.
        name: of the image.
        semantic_truth: class ids, integer [H, W]; None: those of `truth`.
        semantic_prediction: class ids that are predicted, where semantic maps are made otherwise; or None.

    Raises:
        DataError: the shapes differ, or there is no pixel.
    """

    truth: np.ndarray
    prediction: np.ndarray
    instance_scores: np.ndarray | None = None
    semantic_scores: np.ndarray | None = None
    name: str = ""
    semantic_truth: np.ndarray | None = None
    semantic_prediction: np.ndarray | None = None

    def __post_init__(self) -> None:
        scores = (self.instance_scores, self.semantic_scores)
        maps = (self.truth, self.prediction, *scores, self.semantic_truth, self.semantic_prediction)
        shapes = [values.shape for values in maps if values is not None]
        if len({*shapes}) > 1 or self.truth.ndim != 2 or not self.truth.size:
            found = ", ".join(str(list(shape)) for shape in shapes)
            raise DataError(f"{self.name}: expected maps of one shape, [height, width], with pixels; got {found}")

    @functools.cached_property
    def overlaps(self) -> Overlaps:
        """What the segments of both maps share."""
        return Overlaps(*overlap_table(self.truth, self.prediction))

    def segments(self, descriptor: DatasetDescriptor) -> tuple[Segments, Segments]:
        """The true and the predicted segments, in the order of `overlaps`; raises DataError for unknown classes."""
        true_ids, predicted_ids, pixels = self.overlaps
        return (
            segments_of(true_ids, pixels.sum(1), descriptor, "truth"),
            segments_of(predicted_ids, pixels.sum(0), descriptor, "prediction"),
        )

    @functools.cached_property
    def scored_segments(self) -> ScoredSegments:
        """The predicted segments, with scores as in DeepLab2: the product of the means of the two score maps.

        Raises:
            DataError: there are no scores.
        """
        if self.instance_scores is None or self.semantic_scores is None:
            raise DataError(f"{self.name}: expected maps of instance scores and semantic scores, got none")
        flat = self.prediction.reshape(-1)
        # Sums over runs of equal ids, of which there are far fewer than pixels, then over the runs of each id.
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
        ids, first, numbers = np.unique(flat[starts].astype(np.int64), return_index=True, return_inverse=True)
        areas = np.bincount(numbers, np.diff(starts, append=len(flat)))
        scores = np.ones(len(ids))
        for values in (self.instance_scores, self.semantic_scores):
            sums = np.add.reduceat(values.reshape(-1), starts, dtype=np.float64)
            scores *= np.bincount(numbers, sums) / areas
        order = np.argsort(first)
        return ScoredSegments(ids[order], areas[order], scores[order])
