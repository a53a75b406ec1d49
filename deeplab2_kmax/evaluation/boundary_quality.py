"""Boundary PQ and Boundary IoU: how well the outlines of segments are found, whatever their size.

"Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", Cheng et al., CVPR 2021, arXiv:2103.16562.

*Boundary PQ* is panoptic quality in which the IoU of a pair is the lower of that of both masks and that of the pixels
near both boundaries (`boundaries`). What excuses a prediction is decided by whole masks, as in panoptic quality. It
equals the authors' code.

*Boundary IoU* of a class compares the pixels near the boundaries of the class in true and predicted semantic maps. As
mean IoU it sums intersections and unions over all images, and leaves out pixels that are void in truth.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.evaluation.boundaries import boundary_width, near_boundaries
from deeplab2_kmax.evaluation.compared_maps import ComparedMaps
from deeplab2_kmax.evaluation.metric import TableBlock, packed, percent, unpacked
from deeplab2_kmax.evaluation.panoptic_quality import (
    VOID,
    PanopticQualityResult,
    Segments,
    match_segments,
    overlap_table,
    sums_of_matches,
)

# The authors' for COCO; they use 0.005 for Cityscapes.
USUAL_RATIO = 0.02


@dataclasses.dataclass(frozen=True)
class BoundaryQualityResult:
    """Boundary PQ and Boundary IoU of a data set.

    Attributes:
        quality: Boundary PQ, with its SQ and RQ.
        iou: float64 [C], Boundary IoU of each class, 0..1, in the order of `quality.descriptor.classes`.
        occurs: bool [C], whether the class occurs in true or predicted semantic maps.
        ratio: the width of boundaries as a fraction of an image's diagonal.
    """

    quality: PanopticQualityResult
    iou: np.ndarray
    occurs: np.ndarray
    ratio: float

    @property
    def mean_iou(self) -> float:
        """Boundary IoU as a mean over the classes that occur; 0 if none does."""
        return float(self.iou[self.occurs].mean()) if self.occurs.any() else 0.0

    def as_scalars(self) -> dict[str, float]:
        """Scalars for TensorBoard: `evaluation/boundary/PQ`, `SQ`, `RQ` and `IoU`, 0..1."""
        quality = {name.upper(): getattr(self.quality.all, name) for name in ("pq", "sq", "rq")}
        return {f"evaluation/boundary/{name}": value for name, value in {**quality, "IoU": self.mean_iou}.items()}

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON file: "ratio", "panoptic_quality" and "iou", with entries as of the usual two."""
        names = [c.name for c in self.quality.descriptor.classes]
        per_class = {name: float(iou) for name, iou, occurs in zip(names, self.iou, self.occurs) if occurs}
        iou = {"mean": self.mean_iou, "classes": len(per_class), "per_class": per_class}
        return {"ratio": self.ratio, "panoptic_quality": self.quality.as_dict(), "iou": iou}

    def as_block(self) -> TableBlock:
        """The part of the table."""
        groups = (("All", self.quality.all), ("Things", self.quality.things), ("Stuff", self.quality.stuff))
        rows: list[tuple[str, ...]] = [
            (name, *map(percent, averages[:3]), str(averages.classes)) for name, averages in groups
        ]
        rows.append(("mean boundary IoU", percent(self.mean_iou), "", "", str(int(self.occurs.sum()))))
        return TableBlock(("at boundaries", "PQ", "SQ", "RQ", "classes"), rows)


class BoundaryQuality:
    """Accumulates Boundary PQ and Boundary IoU: sums, as large for any number of images.

    Args:
        descriptor: the data set.
        ratio: the width of boundaries as a fraction of an image's diagonal.
    """

    def __init__(self, descriptor: DatasetDescriptor, ratio: float = USUAL_RATIO) -> None:
        self.descriptor = descriptor
        self.ratio = ratio
        classes = len(descriptor.classes)
        self._segments = np.zeros((4, classes))
        # Pixels in both, in truth, in prediction.
        self._pixels = np.zeros((3, classes), np.int64)

    def update(self, maps: ComparedMaps) -> None:
        """Adds one image; raises DataError where an id's class is not in the data set."""
        truth, prediction = maps.segments(self.descriptor)
        at_most = self._boundary_iou(maps, truth)
        matches = match_segments(truth, prediction, maps.overlaps.pixels, at_most)
        self._segments += sums_of_matches(truth.classes, prediction.classes, matches, self._segments.shape[1])
        self._pixels += self._class_pixels(maps)

    def _boundary_iou(self, maps: ComparedMaps, truth: Segments) -> np.ndarray:
        """The IoU of the pixels near both boundaries, of each pair of segments, float64 [T, P]."""
        width = boundary_width(maps.truth.shape, self.ratio)
        true_ids, predicted_ids, _ = maps.overlaps
        # Pixels far from boundaries become a segment of their own, except that all pixels of void in truth count.
        far = int(max(true_ids[-1], predicted_ids[-1])) + 1
        is_void = maps.truth // self.descriptor.label_divisor == self.descriptor.ignore_label
        true_map = np.where(near_boundaries(maps.truth, width) | is_void, maps.truth, far)
        predicted_map = np.where(near_boundaries(maps.prediction, width), maps.prediction, far)
        rows, columns, counts = overlap_table(true_map, predicted_map)
        # Every segment has pixels near its boundary, so that all ids are among the rows and columns.
        pixels = counts[np.ix_(np.searchsorted(rows, true_ids), np.searchsorted(columns, predicted_ids))]
        in_void = pixels[truth.classes == VOID].sum(0)
        true_areas = counts.sum(1)[np.searchsorted(rows, true_ids)]
        predicted_areas = counts.sum(0)[np.searchsorted(columns, predicted_ids)]
        unions = true_areas[:, np.newaxis] + predicted_areas - pixels - in_void
        return np.divide(pixels, unions, out=np.zeros_like(pixels), where=unions > 0)

    def _class_pixels(self, maps: ComparedMaps) -> np.ndarray:
        """Pixels near the boundaries of classes: in both maps, in truth and in prediction, int64 [3, C]."""
        divisor = self.descriptor.label_divisor
        true_map = maps.truth // divisor if maps.semantic_truth is None else maps.semantic_truth
        predicted_map = maps.prediction // divisor if maps.semantic_prediction is None else maps.semantic_prediction
        width = boundary_width(true_map.shape, self.ratio)
        labelled = true_map != self.descriptor.ignore_label
        true_map, predicted_map = (
            np.where(near_boundaries(classes, width), classes, -1)[labelled] for classes in (true_map, predicted_map)
        )
        ids = [c.id for c in self.descriptor.classes]

        def counted(classes: np.ndarray) -> np.ndarray:
            return np.bincount(classes[classes >= 0], minlength=max(ids) + 1)[ids]

        return np.stack([counted(true_map[true_map == predicted_map]), counted(true_map), counted(predicted_map)])

    def merge(self, content: bytes) -> None:
        """Adds what another BoundaryQuality has accumulated over other images of the data set, as its `to_bytes`."""
        other = unpacked(content)
        self._segments += other["segments"]
        self._pixels += other["pixels"]

    def to_bytes(self) -> bytes:
        """What has been accumulated, for another worker's `merge`."""
        return packed({"segments": self._segments, "pixels": self._pixels})

    def result(self) -> BoundaryQualityResult:
        """The quality over all images so far."""
        both, true, predicted = self._pixels
        union = true + predicted - both
        quality = PanopticQualityResult(self.descriptor, *self._segments.copy())
        return BoundaryQualityResult(quality, both / np.maximum(union, 1), union > 0, self.ratio)
