"""Average precision (AP) of instances as Cityscapes' own script defines it, from panoptic maps and scores.

It differs from COCO's (`instance_ap`) in what is left out and in how the curve of precision over recall is summed:
objects with fewer than 100 pixels, crowd regions ("groups") and void are neither found nor missed, detections that lie
in them are not counted, and the area under the curve is taken as it is, without interpolation. A detection finds an
object if their IoU exceeds the threshold; equality does not do.

What is kept is a detection's score and whether it was right at each threshold, 17 bytes a detection.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.evaluation.compared_maps import ComparedMaps
from deeplab2_kmax.evaluation.metric import TableBlock, packed, percent, unpacked

# 0.5, 0.55 ... 0.95, rounded as the script has them, and the smallest object that counts.
_THRESHOLDS = np.arange(0.5, 1.0, 0.05)
_SMALLEST_OBJECT = 100
_BITS = 1 << np.arange(len(_THRESHOLDS))
_DETECTION = np.dtype([("row", np.int32), ("score", np.float64), ("found", np.uint16), ("wrong", np.uint16)])


@dataclasses.dataclass(frozen=True)
class CityscapesAPResult:
    """Cityscapes' AP of a data set.

    Attributes:
        descriptor: the data set.
        ap: float64 [K, 10], AP of the thing classes at each IoU threshold, 0..1; NaN for classes without objects.
    """

    descriptor: DatasetDescriptor
    ap: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over thresholds and the classes that have objects; 0 if none has."""
        return _mean(self.ap)

    @property
    def mean_50(self) -> float:
        """The same at the threshold 0.5 alone."""
        return _mean(self.ap[:, 0])

    def as_scalars(self) -> dict[str, float]:
        """Scalars for TensorBoard: `evaluation/ap_cityscapes/AP` and `AP_50%`."""
        return {"evaluation/ap_cityscapes/AP": self.mean, "evaluation/ap_cityscapes/AP_50%": self.mean_50}

    def as_block(self) -> TableBlock:
        """The part of the table."""
        cells = ("Cityscapes' instance AP", percent(self.mean), percent(self.mean_50), "", str(len(self._with_objects)))
        return TableBlock(("", "AP", "AP@.50", "", "classes"), [cells])

    @property
    def _with_objects(self) -> dict[str, np.ndarray]:
        """AP at each threshold of the classes that have objects, by name."""
        names = [self.descriptor.by_id[class_id].name for class_id in self.descriptor.thing_class_ids]
        return {name: ap for name, ap in zip(names, self.ap) if not np.isnan(ap).any()}

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON file: "ap", "ap_50", "classes" and, by class name, "per_class"."""
        per_class = {name: {"ap": float(ap.mean()), "ap_50": float(ap[0])} for name, ap in self._with_objects.items()}
        return {"ap": self.mean, "ap_50": self.mean_50, "classes": len(per_class), "per_class": per_class}


class CityscapesAP:
    """Accumulates what Cityscapes' AP is computed from.

    Args:
        descriptor: the data set.
    """

    def __init__(self, descriptor: DatasetDescriptor):
        self.descriptor = descriptor
        self._rows = {class_id: row for row, class_id in enumerate(descriptor.thing_class_ids)}
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._objects = np.zeros(len(self._rows), np.int64)
        self._detections = [np.zeros(0, _DETECTION)]

    def update(self, maps: ComparedMaps) -> None:
        """Adds one image.

        Raises:
            DataError: it has no scores. Nothing is added.
        """
        true_ids, predicted_ids, overlaps = maps.overlaps
        segments = maps.scored_segments
        columns = np.searchsorted(predicted_ids, segments.ids)
        true_classes, instances = np.divmod(true_ids, self.descriptor.label_divisor)
        predicted_classes = segments.ids // self.descriptor.label_divisor
        in_void = overlaps[true_classes == self.descriptor.ignore_label].sum(0)[columns]
        areas = overlaps.sum(1)
        for class_id in np.union1d(true_classes, predicted_classes).tolist():
            if class_id not in self._rows:
                continue
            is_object, is_detection = true_classes == class_id, predicted_classes == class_id
            shared = overlaps[np.ix_(is_object, columns[is_detection])]
            crowd, small = instances[is_object] == 0, areas[is_object] < _SMALLEST_OBJECT
            counts = ~crowd & ~small
            iou = shared / (areas[is_object][:, np.newaxis] + segments.areas[is_detection] - shared)
            # [T, P, thresholds]. From 0.5 on a detection exceeds the threshold with one object at most.
            exceeds = iou[..., np.newaxis] > _THRESHOLDS
            # A group with fewer than 100 pixels counts twice, as in the script.
            ignored = in_void[is_detection] + shared[crowd].sum(0) + shared[small].sum(0)
            excused = (ignored / segments.areas[is_detection])[:, np.newaxis] > _THRESHOLDS
            detections = np.zeros(int(is_detection.sum()), _DETECTION)
            detections["row"], detections["score"] = self._rows[class_id], segments.scores[is_detection]
            detections["found"] = exceeds[counts].any(0) @ _BITS
            detections["wrong"] = (~exceeds.any(0) & ~excused) @ _BITS
            self._objects[self._rows[class_id]] += np.count_nonzero(counts)
            self._detections.append(detections)

    def merge(self, content: bytes) -> None:
        """Adds what another CityscapesAP has accumulated over other images of the same data set, as its `to_bytes`."""
        other = unpacked(content)
        self._objects = self._objects + other["objects"]
        self._detections.append(other["detections"])

    def to_bytes(self) -> bytes:
        """What has been accumulated, for another worker's `merge`."""
        return packed({"objects": self._objects, "detections": np.concatenate(self._detections)})

    def result(self) -> CityscapesAPResult:
        """AP over all images so far."""
        detections = np.concatenate(self._detections)
        ap = np.full((len(self._rows), len(_BITS)), np.nan)
        for row, objects in enumerate(self._objects.tolist()):
            of_class = detections[detections["row"] == row]
            for number, bit in enumerate(_BITS.tolist() if objects else []):
                found, wrong = of_class["found"] & bit > 0, of_class["wrong"] & bit > 0
                counts = found | wrong
                ap[row, number] = _area_under_curve(of_class["score"][counts], found[counts], objects)
        return CityscapesAPResult(self.descriptor, ap)


def _area_under_curve(scores: np.ndarray, found: np.ndarray, objects: int) -> float:
    """The area under the curve of precision over recall.

    Args:
        scores: float64 [P] of the detections that count.
        found: bool [P], which of them find an object.
        objects: how many there are to find.
    """
    order = np.argsort(scores)
    # A point of the curve for each distinct score: the detections with that score or a higher one.
    _, starts = np.unique(scores[order], return_index=True)
    right = np.cumsum(found[order][::-1])[::-1][starts]
    # The curve ends at recall 0 with precision 1.
    precision = np.append(right / (len(scores) - starts), 1.0)
    recall = np.append(right / objects, 0.0)
    # Each point stands for half of the way to both of its neighbors.
    around = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (around[:-2] - around[2:]) / 2)


def _mean(values: np.ndarray) -> float:
    """The mean without NaN; 0 of nothing."""
    finite = values[~np.isnan(values)]
    return float(finite.mean()) if finite.size else 0.0
