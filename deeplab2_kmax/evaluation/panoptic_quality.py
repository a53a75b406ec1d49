"""Panoptic quality, equal to the official panopticapi script.

"Panoptic Segmentation", Kirillov et al., CVPR 2019, arXiv:1801.00868. For each class

    PQ = sum of IoU over matched pairs / (TP + FP / 2 + FN / 2) = SQ * RQ,

where a predicted and a true segment of one class match if their IoU exceeds 1/2; pixels that are void in truth do not
count in the union. Predictions of which more than half lies in void or in a crowd region of their class are not
counted. Crowd regions themselves are never matched and never missed.

Where to start reading: `PanopticQuality.update`, then `match_segments`, which holds the rules above.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass
from deeplab2_kmax.errors import DataError

# Stands in for the class index of pixels that belong to no segment.
VOID = -1
# Rows of the state of `PanopticQuality`.
_IOU, _TP, _FP, _FN = range(4)
# Ids below this are numbered by means of a table with an entry for every possible id. Sorting, the way for larger ids,
# is slower. Panoptic ids of COCO (133 * 256) and of Cityscapes (19 * 1000) are below it.
_LARGEST_TABLE = 2**19


class Segments(NamedTuple):
    """The segments of one label map; void may be among them.

    Attributes:
        classes: int64 [S], index of each segment's class, or `VOID`.
        crowd: bool [S], whether the segment is a crowd region.
        areas: float64 [S], in pixels. Those of a truth need not be what its map shows.
    """

    classes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray


class Categories(NamedTuple):
    """The classes of files that were made elsewhere, which need not fit a `DatasetDescriptor`.

    Attributes:
        name: of the data set.
        classes: in any order; ids are what the files hold, and names differ.
    """

    name: str
    classes: tuple[SegmentClass, ...]


class Averages(NamedTuple):
    """Means of PQ, SQ and RQ, 0..1, over the classes that occur in truth or prediction, and the number of these."""

    pq: float
    sq: float
    rq: float
    classes: int


@dataclasses.dataclass(frozen=True)
class PanopticQualityResult:
    """Panoptic quality of a data set.

    Attributes:
        descriptor: the data set; the arrays below are in the order of `descriptor.classes`.
        iou: float64 [C], sum of IoU over the matched pairs of each class.
        tp: float64 [C], number of matched pairs (true positives).
        fp: float64 [C], number of predicted segments without a match (false positives).
        fn: float64 [C], number of true segments without a match (false negatives).
    """

    descriptor: DatasetDescriptor | Categories
    iou: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray

    @property
    def occurs(self) -> np.ndarray:
        """Classes of which at least one segment counts, bool [C]; the others have no quality."""
        return self.tp + self.fp + self.fn > 0

    @property
    def sq(self) -> np.ndarray:
        """Segmentation quality (mean IoU of matched pairs) of each class, float64 [C], 0 where nothing matched."""
        return self.iou / np.maximum(self.tp, 1)

    @property
    def rq(self) -> np.ndarray:
        """Recognition quality (an F1 score) of each class, float64 [C]."""
        # A class with any segment has a denominator of at least 1/2, so the maximum only keeps absent ones from 0 / 0.
        return self.tp / np.maximum(self.tp + 0.5 * self.fp + 0.5 * self.fn, 0.5)

    @property
    def pq(self) -> np.ndarray:
        """Panoptic quality of each class, float64 [C]."""
        return self.iou / np.maximum(self.tp + 0.5 * self.fp + 0.5 * self.fn, 0.5)

    @property
    def all(self) -> Averages:
        """Means over all classes."""
        return self._averages(np.ones(len(self.tp), bool))

    @property
    def things(self) -> Averages:
        """Means over thing classes."""
        return self._averages(self._is_thing)

    @property
    def stuff(self) -> Averages:
        """Means over stuff classes."""
        return self._averages(~self._is_thing)

    @property
    def _is_thing(self) -> np.ndarray:
        return np.array([c.is_thing for c in self.descriptor.classes])

    def _averages(self, chosen: np.ndarray) -> Averages:
        chosen = chosen & self.occurs
        if not chosen.any():
            return Averages(0.0, 0.0, 0.0, 0)
        pq, sq, rq = (float(quality[chosen].mean()) for quality in (self.pq, self.sq, self.rq))
        return Averages(pq, sq, rq, int(chosen.sum()))

    def as_scalars(self) -> dict[str, float]:
        """The averages by the names of scalars in TensorBoard.

        Returns:
            `evaluation/pq/{PQ,SQ,RQ,TP,FN,FP}`, which are DeepLab2's (qualities 0..1, counts as means over the classes
            that occur), and PQ, SQ and RQ of things and of stuff under `evaluation/pq_things/` and
            `evaluation/pq_stuff/`.
        """
        scalars = {}
        for group, averages in (("pq", self.all), ("pq_things", self.things), ("pq_stuff", self.stuff)):
            for name in ("pq", "sq", "rq"):
                scalars[f"evaluation/{group}/{name.upper()}"] = getattr(averages, name)
        for name in ("tp", "fn", "fp"):
            counts = getattr(self, name)[self.occurs]
            scalars[f"evaluation/pq/{name.upper()}"] = float(counts.mean()) if len(counts) else 0.0
        return scalars

    def class_scalars(self) -> dict[str, float]:
        """PQ, SQ and RQ, 0..1, of each class that occurs, as `evaluation/{pq,sq,rq}_class/<name>`."""
        return {
            f"evaluation/{quality}_class/{c.name}": float(values[row])
            for quality, values in (("pq", self.pq), ("sq", self.sq), ("rq", self.rq))
            for row, c in enumerate(self.descriptor.classes)
            if self.occurs[row]
        }

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON file: "all", "things", "stuff" and "per_class" by class name, qualities 0..1."""
        rows = zip(self.descriptor.classes, self.pq, self.sq, self.rq, self.tp, self.fp, self.fn, self.occurs)
        return {
            **{group: getattr(self, group)._asdict() for group in ("all", "things", "stuff")},
            "per_class": {
                c.name: {
                    "id": c.id,
                    "is_thing": c.is_thing,
                    "pq": float(pq),
                    "sq": float(sq),
                    "rq": float(rq),
                    "tp": int(tp),
                    "fp": int(fp),
                    "fn": int(fn),
                }
                for c, pq, sq, rq, tp, fp, fn, occurs in rows
                if occurs
            },
        }


class PanopticQuality:
    """Accumulates panoptic quality over images.

    Its state is a sum over images, so workers can share a data set and add their states up.

    Args:
        descriptor: the data set.
    """

    def __init__(self, descriptor: DatasetDescriptor):
        self.descriptor = descriptor
        self.reset()

    def reset(self) -> None:
        """Forgets all images."""
        self._sums = np.zeros((4, len(self.descriptor.classes)))

    @property
    def state(self) -> np.ndarray:
        """A copy of what has been accumulated, float64 [4, C]: sum of IoU, TP, FP, FN of each class."""
        return self._sums.copy()

    def merge(self, other: PanopticQuality | np.ndarray) -> None:
        """Adds what another PanopticQuality, or its `state`, has accumulated over other images of the same data set."""
        self._sums += other.state if isinstance(other, PanopticQuality) else np.asarray(other)

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Adds one image, or a batch of images of one size.

        Args:
            truth: panoptic ids, integer [H, W] or [B, H, W]: class id * label divisor + instance id. Pixels of the
                ignore label are void. Pixels of a thing class with instance id 0 are its crowd region; records made
                with treat_crowd_as_ignore have void there instead.
            prediction: panoptic ids of the same shape. Pixels of the ignore label belong to no segment.

        Returns:
            What has been added to `state`, float64 [4, C].

        Raises:
            DataError: shapes differ, values are no integers, or an id's class is not in the data set. Nothing is added.
        """
        truth, prediction = np.asarray(truth), np.asarray(prediction)
        _check_maps(truth, prediction)
        # Added to the state at the end, so that a bad label in the last image of a batch leaves the state as it was.
        sums = np.zeros_like(self._sums)
        size = truth.shape[-2:]
        for true_map, predicted_map in zip(truth.reshape(-1, *size), prediction.reshape(-1, *size)):
            true_ids, predicted_ids, overlaps = overlap_table(true_map, predicted_map)
            true_segments = segments_of(true_ids, overlaps.sum(1), self.descriptor, "truth")
            predicted_segments = segments_of(predicted_ids, overlaps.sum(0), self.descriptor, "prediction")
            sums += compare_segments(true_segments, predicted_segments, overlaps, len(self.descriptor.classes))
        self._sums += sums
        return sums

    def add(self, truth: Segments, prediction: Segments, overlaps: np.ndarray) -> np.ndarray:
        """Adds one image whose segments are known already; the arguments are those of `compare_segments`.

        Returns:
            What has been added to `state`, float64 [4, C].
        """
        sums = compare_segments(truth, prediction, overlaps, len(self.descriptor.classes))
        self._sums += sums
        return sums

    def result(self) -> PanopticQualityResult:
        """The panoptic quality over all images so far."""
        iou, tp, fp, fn = self.state
        return PanopticQualityResult(self.descriptor, iou, tp, fp, fn)


def segments_of(ids: np.ndarray, areas: np.ndarray, descriptor: DatasetDescriptor, where: str) -> Segments:
    """The segments of a map.

    Args:
        ids: panoptic ids, int64 [S].
        areas: float64 [S], in pixels.
        descriptor: the data set that the ids belong to.
        where: what messages call the map.

    Raises:
        DataError: an id's class is not in the data set.
    """
    class_ids, instances = np.divmod(ids, descriptor.label_divisor)
    indices = {descriptor.ignore_label: VOID, **{c.id: index for index, c in enumerate(descriptor.classes)}}
    for panoptic_id, class_id in zip(ids.tolist(), class_ids.tolist()):
        if class_id not in indices:
            raise DataError(
                f"{where}: panoptic id {panoptic_id} has class {class_id}, which data set {descriptor.name!r} does not"
                f" have (label divisor {descriptor.label_divisor}, ignore label {descriptor.ignore_label})"
            )
    classes = np.array([indices[class_id] for class_id in class_ids.tolist()], np.int64)
    is_thing = np.array([c.is_thing for c in descriptor.classes])
    # `VOID` is -1 and picks some class's entry of `is_thing`, so it has to be left out by itself.
    return Segments(classes, (classes != VOID) & is_thing[classes] & (instances == 0), areas)


def _check_maps(truth: np.ndarray, prediction: np.ndarray) -> None:
    if truth.shape != prediction.shape or truth.ndim not in (2, 3) or truth.size == 0:
        raise DataError(
            "expected label maps of one shape, [height, width] or [batch, height, width]; "
            f"got truth {list(truth.shape)} and prediction {list(prediction.shape)}"
        )
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"{name}: expected integer panoptic ids, got {labels.dtype}")


def overlap_table(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts the pixels that each pair of segments shares.

    Args:
        truth: ids, integer [H, W], within int32.
        prediction: ids of the same shape.

    Returns:
        The ids in truth, int64 [T] ascending; those in prediction, int64 [P]; shared pixels, float64 [T, P].
    """
    truth, prediction = truth.reshape(-1), prediction.reshape(-1)
    # Neighboring pixels mostly have the same pair of ids. There are far fewer runs of equal pairs than pixels, and
    # numbering and counting runs instead of pixels is most of what makes this fast.
    changes = (truth[1:] != truth[:-1]) | (prediction[1:] != prediction[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    lengths = np.diff(starts, append=len(truth))
    true_ids, rows = _numbered(truth[starts])
    predicted_ids, columns = _numbered(prediction[starts])
    shape = len(true_ids), len(predicted_ids)
    counts = np.bincount(rows * shape[1] + columns, weights=lengths, minlength=shape[0] * shape[1])
    return true_ids, predicted_ids, counts.reshape(shape)


def _numbered(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of ids [R] as int64, ascending, and the place of each id among them, int64 [R]."""
    ids = ids.astype(np.int64)
    if ids.min() < 0 or ids.max() >= _LARGEST_TABLE:
        return np.unique(ids, return_inverse=True)
    present = np.zeros(ids.max() + 1, bool)
    present[ids] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[ids]


class Matches(NamedTuple):
    """Which segments of one image match.

    Attributes:
        iou: float64 [T, P], IoU of segments that could match; 0 elsewhere.
        matched: bool [T, P], pairs that do.
        missed: bool [T], true segments without a match that count as false negatives.
        false_positive: bool [P], predicted segments without a match that count against the prediction.
    """

    iou: np.ndarray
    matched: np.ndarray
    missed: np.ndarray
    false_positive: np.ndarray


def match_segments(
    truth: Segments, prediction: Segments, overlaps: np.ndarray, at_most: np.ndarray | None = None
) -> Matches:
    """Matches the segments of one image.

    Args:
        truth: true segments.
        prediction: predicted segments; their `crowd` is not used.
        overlaps: float64 [T, P], pixels that a true and a predicted segment share.
        at_most: float64 [T, P], for each pair the highest value that counts as its IoU; None: no limits.
    """
    void_overlap = overlaps[truth.classes == VOID].sum(0)
    same_class = truth.classes[:, np.newaxis] == prediction.classes
    real = (truth.classes >= 0) & ~truth.crowd
    matchable = same_class & real[:, np.newaxis] & (overlaps > 0)
    # Pixels of a predicted segment that are void in truth count neither for nor against it, so they leave the union.
    # Pixels in a crowd region stay in the union, as in the official script.
    unions = truth.areas[:, np.newaxis] + prediction.areas - overlaps - void_overlap
    # Areas that are wrong can make a union of 0, whose IoU is infinite in the official script, too.
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = np.divide(overlaps, unions, out=np.zeros_like(overlaps), where=matchable)
    if at_most is not None:
        iou = np.minimum(iou, at_most)
    # Strictly more than half: then a segment can match at most one other, since two that both cover more than half of
    # it would overlap each other, and segments of one map do not. No assignment has to be solved. (Where areas are
    # wrong there can be more, and each pair counts, as in the official script.)
    matched = iou > 0.5

    # A prediction is no false positive if more than half of its own area, not of a union, lies in void or in a crowd
    # region of its class: the truth does not say whether it is right.
    crowd_overlap = (overlaps * (same_class & truth.crowd[:, np.newaxis])).sum(0)
    excused = (void_overlap + crowd_overlap) / prediction.areas > 0.5
    false_positive = ~matched.any(0) & ~excused & (prediction.classes >= 0)
    missed = ~matched.any(1) & real
    return Matches(iou, matched, missed, false_positive)


def compare_segments(truth: Segments, prediction: Segments, overlaps: np.ndarray, num_classes: int) -> np.ndarray:
    """Sum of IoU, TP, FP and FN of each class in one image.

    Args:
        truth: true segments.
        prediction: predicted segments; their `crowd` is not used.
        overlaps: float64 [T, P], pixels that a true and a predicted segment share.
        num_classes: C.

    Returns:
        float64 [4, C]; rows as in `PanopticQuality.state`.
    """
    matches = match_segments(truth, prediction, overlaps)
    return sums_of_matches(truth.classes, prediction.classes, matches, num_classes)


def sums_of_matches(
    true_groups: np.ndarray, predicted_groups: np.ndarray, matches: Matches, num_groups: int
) -> np.ndarray:
    """Sum of IoU, TP, FP and FN of each group of segments, such as a class.

    Args:
        true_groups: int64 [T], the group of each true segment; pairs count in that of the true one.
        predicted_groups: int64 [P], the group of each predicted segment.
        matches: what is right and wrong.
        num_groups: G.

    Returns:
        float64 [4, G]; rows as in `PanopticQuality.state`.
    """

    def per_group(groups: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(groups, weights=weights, minlength=num_groups)

    rows, columns = np.nonzero(matches.matched)
    sums = np.zeros((4, num_groups))
    sums[_IOU] = per_group(true_groups[rows], matches.iou[rows, columns])
    sums[_TP] = per_group(true_groups[rows])
    sums[_FP] = per_group(predicted_groups[matches.false_positive])
    sums[_FN] = per_group(true_groups[matches.missed])
    return sums
