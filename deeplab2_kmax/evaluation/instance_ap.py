"""Average precision (AP) of instances, COCO's, from panoptic maps and scores, equal to DeepLab2's evaluator.

Each thing segment of a predicted map is a detection; its score is the product of the means of two score maps over its
pixels. Each thing segment of a true map is an object, and the crowd regions of a class, with instance id 0, are objects
that are neither found nor missed. Void in truth excuses nothing: a detection there is a false positive, as in
instance segmentation.

pycocotools decides which detection finds which object and computes the figures. What lies between, a detection's
score and whether it was right at each IoU threshold and size, is kept in 36 bytes a detection (2 MB for COCO's
validation set), where masks would take a thousand times as much: memory grows with the number of detections, since
AP depends on the order of all of them, but no map is kept.

Where to start reading: `InstanceAP.update`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.evaluation.compared_maps import ComparedMaps, ScoredSegments
from deeplab2_kmax.evaluation.metric import TableBlock, packed, percent, unpacked

# pycocotools' figures in its order: the name in JSON files, and DeepLab2's in TensorBoard.
_FIGURES = {
    "ap": "AP_Mask",
    "ap_50": "AP_Mask_@IoU=0.5",
    "ap_75": "AP_Mask_@IoU=0.75",
    "ap_small": "AP_Mask_small",
    "ap_medium": "AP_Mask_medium",
    "ap_large": "AP_Mask_large",
    "ar_1": "AR_Mask_maxdets=1",
    "ar_10": "AR_Mask_maxdets=10",
    "ar_100": "AR_Mask_maxdets=100",
    "ar_small": "AR_Mask_small",
    "ar_medium": "AR_Mask_medium",
    "ar_large": "AR_Mask_large",
}
# What pycocotools says where there is no object to find.
_NO_OBJECTS = -1.0
# IoU thresholds, sizes (all, small, medium, large) and numbers of detections that count.
_PARAMS = COCOeval(iouType="segm").params
_SIZES = len(_PARAMS.areaRng)
_MOST_DETECTIONS = max(_PARAMS.maxDets)
_BITS = 1 << np.arange(len(_PARAMS.iouThrs))


@dataclasses.dataclass(frozen=True)
class InstanceAPResult:
    """Instance AP of a data set.

    Attributes:
        descriptor: the data set.
        figures: AP and AR by the names in JSON files: 0..1, and -1 where no object is of that size. All are 0 where
            there is not a single detection.
        detailed: whether scalars and table tell more than AP over all IoU thresholds, sizes and classes.
        per_class: AP over all IoU thresholds, and AP at IoU 0.5, 0..1, of each thing class that has objects, by name.
    """

    descriptor: DatasetDescriptor
    figures: dict[str, float]
    per_class: dict[str, dict[str, float]]
    detailed: bool = False

    def as_scalars(self) -> dict[str, float]:
        """DeepLab2's TensorBoard scalars `evaluation/ap/...`: AP_Mask, and if `detailed` the other eleven."""
        names = _FIGURES if self.detailed else ["ap"]
        return {f"evaluation/ap/{_FIGURES[name]}": self.figures[name] for name in names}

    def as_block(self) -> TableBlock:
        """The part of the table: AP, and if `detailed` also AP and AR by size and by number of detections."""
        shown = {name: "-" if value == _NO_OBJECTS else percent(value) for name, value in self.figures.items()}
        block = TableBlock(
            ("", "AP", "AP@.50", "AP@.75", "classes"),
            [("instance AP", shown["ap"], shown["ap_50"], shown["ap_75"], str(len(self.per_class)))],
        )
        if self.detailed:
            sizes = ("small", "medium", "large")
            block.rows.append(("", *sizes, ""))
            block.rows.append(("AP by size", *(shown[f"ap_{size}"] for size in sizes), ""))
            block.rows.append(("AR by size", *(shown[f"ar_{size}"] for size in sizes), ""))
            block.rows.append(("", "1", "10", "100", ""))
            block.rows.append(("AR by most detections", *(shown[f"ar_{most}"] for most in (1, 10, 100)), ""))
        return block

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON file: the twelve figures (null where no object is of that size) and "per_class"."""
        figures = {name: None if value == _NO_OBJECTS else value for name, value in self.figures.items()}
        return {**figures, "classes": len(self.per_class), "per_class": self.per_class}


class InstanceAP:
    """Accumulates what AP is computed from.

    Detections of equal score are ranked by the names of their images, so that figures depend neither on the order of
    the images nor on how many workers share them. (pycocotools ranks them by image id, DeepLab2 by the order of the
    records; only detections whose scores are equal to the last digit can make a difference.)

    Args:
        descriptor: the data set.
        detailed: see `InstanceAPResult`.
    """

    def __init__(self, descriptor: DatasetDescriptor, detailed: bool = False):
        self.descriptor = descriptor
        self.detailed = detailed
        self._rows = {class_id: row for row, class_id in enumerate(descriptor.thing_class_ids)}
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._names: list[str] = []
        self._objects = np.zeros((len(self._rows), _SIZES), np.int64)
        self._detections = [_no_detections()]

    def update(self, maps: ComparedMaps) -> None:
        """Adds one image.

        Raises:
            DataError: it has no scores. Nothing is added.
        """
        true_ids, predicted_ids, overlaps = maps.overlaps
        segments = maps.scored_segments
        columns = np.searchsorted(predicted_ids, segments.ids)
        true_classes, crowd = true_ids // self.descriptor.label_divisor, true_ids % self.descriptor.label_divisor == 0
        predicted_classes = segments.ids // self.descriptor.label_divisor
        self._names.append(maps.name)
        for class_id in np.union1d(true_classes, predicted_classes).tolist():
            if class_id in self._rows:
                is_object, is_detection = true_classes == class_id, predicted_classes == class_id
                detections = ScoredSegments(*(values[is_detection] for values in segments))
                shared = overlaps[np.ix_(is_object, columns[is_detection])]
                self._add(self._rows[class_id], overlaps[is_object].sum(1), crowd[is_object], detections, shared)

    def _add(
        self, row: int, areas: np.ndarray, crowd: np.ndarray, detections: ScoredSegments, shared: np.ndarray
    ) -> None:
        """Compares objects and detections of one class in one image.

        Args:
            row: of the class.
            areas: float64 [T], those of the objects.
            crowd: bool [T], which objects are crowd regions.
            detections: P of them.
            shared: float64 [T, P], pixels that an object and a detection share.
        """
        order = np.argsort(-detections.scores, kind="stable")[:_MOST_DETECTIONS]
        matcher = COCOeval(iouType="segm")
        matcher._gts[0, row] = [
            {"id": number + 1, "area": area, "iscrowd": is_crowd, "ignore": is_crowd}
            for number, (area, is_crowd) in enumerate(zip(areas.tolist(), crowd.tolist()))
        ]
        matcher._dts[0, row] = [
            {"id": number + 1, "area": area, "score": score}
            for number, (area, score) in enumerate(zip(detections.areas.tolist(), detections.scores.tolist()))
        ]
        # A crowd region may hold any number of detections, so that only the part of them which lies outside counts.
        unions = np.where(crowd[:, np.newaxis], 0, areas[:, np.newaxis] - shared) + detections.areas
        matcher.ious[0, row] = (shared / unions).T[order]
        found = _no_detections(len(order))
        found["image"], found["row"], found["score"] = len(self._names) - 1, row, detections.scores[order]
        for size, area_range in enumerate(_PARAMS.areaRng):
            compared = matcher.evaluateImg(0, row, area_range, _MOST_DETECTIONS)
            self._objects[row, size] += np.count_nonzero(np.asarray(compared["gtIgnore"]) == 0)
            found["matched"][:, size] = _BITS @ (compared["dtMatches"] > 0)
            found["ignored"][:, size] = _BITS @ compared["dtIgnore"]
        self._detections.append(found)

    def merge(self, content: bytes) -> None:
        """Adds what another InstanceAP has accumulated over other images of the same data set, as its `to_bytes`."""
        other = unpacked(content)
        detections = other["detections"]
        detections["image"] += len(self._names)
        self._names += json.loads(other["names"].tobytes())
        self._objects = self._objects + other["objects"]
        self._detections.append(detections)

    def to_bytes(self) -> bytes:
        """What has been accumulated, for another worker's `merge`."""
        names = np.frombuffer(json.dumps(self._names).encode(), np.uint8)
        return packed({"names": names, "objects": self._objects, "detections": np.concatenate(self._detections)})

    def result(self) -> InstanceAPResult:
        """AP over all images so far."""
        detections = np.concatenate(self._detections)
        if not len(detections):
            return InstanceAPResult(self.descriptor, dict.fromkeys(_FIGURES, 0.0), self._per_class(None), self.detailed)
        evaluation = COCOeval(iouType="segm")
        images = len(self._names)
        # One more image has all objects: only their number counts, once detections are compared.
        evaluation.params.imgIds = list(range(images + 1))
        evaluation.params.catIds = list(range(len(self._rows)))
        evaluation._paramsEval = evaluation.params
        evaluation.evalImgs = [None] * (len(self._rows) * _SIZES * (images + 1))
        for row, size in np.ndindex(self._objects.shape):
            objects = np.zeros(self._objects[row, size])
            evaluation.evalImgs[(row * _SIZES + size) * (images + 1) + images] = {
                "dtScores": [],
                "dtMatches": np.zeros((len(_BITS), 0)),
                "dtIgnore": np.zeros((len(_BITS), 0)),
                "gtIgnore": objects,
            }
        # Where each image comes in the ranking of equal scores.
        places = np.empty(images, np.int64)
        places[sorted(range(images), key=self._names.__getitem__)] = np.arange(images)
        for part in _by_image_and_class(detections):
            place, row = places[part["image"][0]], part["row"][0]
            for size in range(_SIZES):
                evaluation.evalImgs[(row * _SIZES + size) * (images + 1) + place] = {
                    "dtScores": part["score"],
                    "dtMatches": (part["matched"][:, size] & _BITS[:, np.newaxis]) > 0,
                    "dtIgnore": (part["ignored"][:, size] & _BITS[:, np.newaxis]) > 0,
                    "gtIgnore": np.zeros(0),
                }
        # It prints what it does, and its own table.
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
            evaluation.summarize()
        figures = dict(zip(_FIGURES, map(float, evaluation.stats)))
        return InstanceAPResult(self.descriptor, figures, self._per_class(evaluation.eval["precision"]), self.detailed)

    def _per_class(self, precision: np.ndarray | None) -> dict[str, dict[str, float]]:
        """AP of each class with objects, from pycocotools' precision by threshold, recall, class, size and maximum."""
        of_classes = {}
        for class_id, row in self._rows.items():
            if self._objects[row, 0]:
                of_class = np.zeros((len(_BITS), 1)) if precision is None else precision[:, :, row, 0, -1]
                ap = {"ap": float(of_class.mean()), "ap_50": float(of_class[0].mean())}
                of_classes[self.descriptor.by_id[class_id].name] = ap
        return of_classes


def _no_detections(count: int = 0) -> np.ndarray:
    """Records of detections, all zero; `matched` and `ignored` have a bit for each IoU threshold, by size."""
    sizes = (np.uint16, (_SIZES,))
    fields = [("image", np.int64), ("row", np.int32), ("score", np.float64), ("matched", *sizes), ("ignored", *sizes)]
    return np.zeros(count, fields)


def _by_image_and_class(detections: np.ndarray) -> Iterator[np.ndarray]:
    """Splits records of detections, which come image by image and class by class."""
    changes = (np.diff(detections["image"]) != 0) | (np.diff(detections["row"]) != 0)
    yield from np.split(detections, np.flatnonzero(changes) + 1)
