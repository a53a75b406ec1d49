"""What a report says, gathered image by image in constant memory: figures, errors, and the images worth looking at."""

from __future__ import annotations

import collections
import dataclasses
import heapq
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from deeplab2_kmax.evaluation.panoptic_quality import (
    VOID,
    Categories,
    PanopticQualityResult,
    Segments,
    compare_segments,
    overlap_table,
)
from deeplab2_kmax.results.comparison import image_qualities
from deeplab2_kmax.results.segment_errors import Kind, SegmentErrors, segment_errors

# Sides in pixels of the squares whose areas part the sizes of segments; 32 and 96 are COCO's.
SIZES = (16, 32, 64, 96, 192, 384)
# Numbers of true things in an image that part crowded ones from others.
CROWDING = (1, 2, 4, 8, 16, 32)
BINS = 10


@dataclasses.dataclass(frozen=True)
class LabelledMap:
    """A map of segments with their classes.

    Attributes:
        ids: integer [H, W].
        classes: id of a segment -> index of its class; all other ids are void.
        crowds: ids of crowd regions.
    """

    ids: np.ndarray
    classes: dict[int, int]
    crowds: frozenset[int] = frozenset()

    def segments(self, ids: np.ndarray, areas: np.ndarray) -> Segments:
        """The segments of the ids int64 [S] that occur in the map, void among them."""
        classes = np.array([self.classes.get(i, VOID) for i in ids.tolist()], np.int64)
        return Segments(classes, np.array([i in self.crowds for i in ids.tolist()], bool), areas)


@dataclasses.dataclass(frozen=True)
class ReportImage:
    """One image of a report.

    Attributes:
        name: of the image.
        truth: its labels.
        prediction: what the model says, of the same size.
        confidences: id of a predicted segment -> its confidence, 0..1; None where they are not known.
        slots: id of a predicted segment -> the mask slot that found it; None where they are not known.
        state: of panoptic quality, [4, C]; None: what the two maps give.
    """

    name: str
    truth: LabelledMap
    prediction: LabelledMap
    confidences: dict[int, float] | None = None
    slots: dict[int, int] | None = None
    state: np.ndarray | None = None


class Judged(NamedTuple):
    """An image with its quality and its errors.

    Attributes:
        number: the place of the image in the data set, from 0.
        image: the image.
        quality: see `image_qualities`.
        errors: of its segments.
        true_ids: int64 [T], the ids that `errors.of_truth` is about.
        predicted_ids: int64 [P], those of `errors.of_prediction`.
    """

    number: int
    image: ReportImage
    quality: float
    errors: SegmentErrors
    true_ids: np.ndarray
    predicted_ids: np.ndarray


class Group(NamedTuple):
    """Segments of some size, or of images with so many things; all classes are taken together.

    Attributes:
        name: such as "32² to 64²".
        iou: the sum of IoU over matches.
        tp: matches.
        fp: predicted segments without one.
        fn: true segments without one.
    """

    name: str
    iou: float
    tp: float
    fp: float
    fn: float

    @property
    def quality(self) -> float:
        """PQ, 0..1."""
        return self.iou / max(self.tp + self.fp / 2 + self.fn / 2, 0.5)


class ReportData:
    """Gathers the images of a report.

    Args:
        categories: the classes.
        pictures: how many of the best and of the worst images are kept.
    """

    def __init__(self, categories: Categories, pictures: int) -> None:
        classes = len(categories.classes)
        self.categories = categories
        self.images = 0
        self.errors: collections.Counter[Kind] = collections.Counter()
        self.class_errors = [collections.Counter[Kind]() for _ in range(classes)]
        self.confused: collections.Counter[tuple[int, int]] = collections.Counter()
        # Pixels by true and predicted class; void is last.
        self.confusion = np.zeros((classes + 1, classes + 1), np.int64)
        self.slots: dict[int, SlotUse] = {}
        # Of predicted segments that count: how many there are in each bin of confidence, the sum of their confidences,
        # and how many of them match.
        self.calibration = np.zeros((3, BINS))
        self._sums = np.zeros((4, classes))
        self._sizes = np.zeros((4, len(SIZES) + 1))
        self._crowding = np.zeros((4, len(CROWDING) + 1))
        self._kept = pictures
        # Heaps of (order, number of the image, image), of which the smallest order is given up first.
        self._worst: list[tuple[float, int, Judged]] = []
        self._best: list[tuple[float, int, Judged]] = []

    def add(self, image: ReportImage) -> None:
        """Adds an image, whose maps have one size."""
        judged, state, truth, prediction, overlaps = _judge(image, self.images, len(self.categories.classes))
        errors = judged.errors
        self._sums += state
        self._add_errors(truth, prediction, errors)
        rows, columns = (
            np.where(each.classes < 0, len(self.class_errors), each.classes) for each in (truth, prediction)
        )
        np.add.at(self.confusion, (rows[:, np.newaxis], columns), overlaps.astype(np.int64))
        self._add_groups(truth, prediction, errors)
        self._add_found(image, prediction, judged.predicted_ids, errors)
        if np.isfinite(judged.quality):
            for heap, order in ((self._worst, -judged.quality), (self._best, judged.quality)):
                # The number breaks ties, of which the earlier image wins.
                heapq.heappush(heap, (order, -self.images, judged))
                if len(heap) > self._kept:
                    heapq.heappop(heap)
        self.images += 1

    def _add_errors(self, truth: Segments, prediction: Segments, errors: SegmentErrors) -> None:
        self.errors.update(errors.counts())
        for class_index, kind in zip(truth.classes.tolist(), errors.of_truth):
            if kind is not None:
                self.class_errors[class_index][kind] += 1
        for class_index, kind in zip(prediction.classes.tolist(), errors.of_prediction):
            if kind is Kind.INVENTED:
                self.class_errors[class_index][kind] += 1
        self.confused.update(errors.confused)

    def _add_groups(self, truth: Segments, prediction: Segments, errors: SegmentErrors) -> None:
        is_thing = np.array([*(c.is_thing for c in self.categories.classes), False])
        things = int((is_thing[truth.classes] & ~truth.crowd).sum())
        crowding = int(np.searchsorted(CROWDING, things, side="right"))
        bounds = np.array(SIZES) ** 2
        true_size, predicted_size = (np.searchsorted(bounds, each.areas, side="right") for each in (truth, prediction))
        rows, columns = np.nonzero(errors.matched)
        missed = np.array([kind is not None for kind in errors.of_truth], bool)
        wrong = np.array([kind is not None for kind in errors.of_prediction], bool)
        for table, of_true, of_predicted in (
            (self._sizes, true_size, predicted_size),
            (self._crowding, np.full(len(missed), crowding), np.full(len(wrong), crowding)),
        ):
            np.add.at(table[0], of_true[rows], errors.iou[rows, columns])
            np.add.at(table[1], of_true[rows], 1)
            np.add.at(table[2], of_predicted[wrong], 1)
            np.add.at(table[3], of_true[missed], 1)

    def _add_found(
        self, image: ReportImage, prediction: Segments, predicted_ids: np.ndarray, errors: SegmentErrors
    ) -> None:
        """Adds slots and confidences of the predicted segments that count."""
        right = errors.matched.any(0)
        for place, (segment_id, class_index) in enumerate(zip(predicted_ids.tolist(), prediction.classes.tolist())):
            counts = right[place] or errors.of_prediction[place] is not None
            if class_index < 0 or not counts:
                continue
            if image.slots is not None and segment_id in image.slots:
                use = self.slots.setdefault(image.slots[segment_id], SlotUse())
                use.classes[class_index] += 1
                use.right += int(right[place])
            if image.confidences is not None and segment_id in image.confidences:
                confidence = image.confidences[segment_id]
                bin_ = min(int(confidence * BINS), BINS - 1)
                self.calibration[:, bin_] += (1, confidence, right[place])

    def quality(self) -> PanopticQualityResult:
        """Panoptic quality of all images."""
        return PanopticQualityResult(self.categories, *self._sums)

    def sizes(self) -> list[Group]:
        """Quality by area: matches and misses by that of the true segment, false positives by their own."""
        names = [f"below {SIZES[0]}²", *(f"{a}² to {b}²" for a, b in zip(SIZES, SIZES[1:])), f"from {SIZES[-1]}²"]
        return _groups(names, self._sizes)

    def crowding(self) -> list[Group]:
        """Quality of images by the number of things in them."""
        ranges = [f"{a}" if b == a + 1 else f"{a} to {b - 1}" for a, b in zip(CROWDING, CROWDING[1:])]
        return _groups(["0", *ranges, f"{CROWDING[-1]} or more"], self._crowding)

    def worst(self) -> list[Judged]:
        """The images with the lowest quality, the worst first; at most half of all, so that none is in both lists."""
        return self._sorted(self._worst, -(-self.images // 2))

    def best(self) -> list[Judged]:
        """The images with the highest quality, the best first; none in which nothing is right."""
        return [judged for judged in self._sorted(self._best, self.images // 2) if judged.quality > 0]

    def _sorted(self, heap: list[tuple[float, int, Judged]], most: int) -> list[Judged]:
        return [judged for *_, judged in sorted(heap, key=lambda entry: entry[:2], reverse=True)][:most]

    def calibration_error(self) -> float | None:
        """Expected calibration error of the segments, 0..1; None without confidences."""
        counts, confidences, right = self.calibration
        return float(np.abs(confidences - right).sum() / counts.sum()) if counts.sum() else None


@dataclasses.dataclass
class SlotUse:
    """What a mask slot finds.

    Attributes:
        classes: index of a class -> segments.
        right: how many of them match.
    """

    classes: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    right: int = 0


def judge(image: ReportImage, number: int, num_classes: int) -> Judged:
    """One image by itself; `number` is its place in the data set."""
    return _judge(image, number, num_classes)[0]


def _judge(
    image: ReportImage, number: int, num_classes: int
) -> tuple[Judged, np.ndarray, Segments, Segments, np.ndarray]:
    """The image, its state of panoptic quality, its segments in truth and prediction, and the pixels they share."""
    true_ids, predicted_ids, overlaps = overlap_table(image.truth.ids, image.prediction.ids)
    truth = image.truth.segments(true_ids, overlaps.sum(1))
    prediction = image.prediction.segments(predicted_ids, overlaps.sum(0))
    state = compare_segments(truth, prediction, overlaps, num_classes) if image.state is None else image.state
    errors = segment_errors(truth, prediction, overlaps)
    judged = Judged(number, image, float(image_qualities(state)), errors, true_ids, predicted_ids)
    return judged, state, truth, prediction, overlaps


def gather(images: Iterable[ReportImage], categories: Categories, pictures: int) -> ReportData:
    """`ReportData` of all images."""
    data = ReportData(categories, pictures)
    for image in images:
        data.add(image)
    return data


def _groups(names: list[str], table: np.ndarray) -> list[Group]:
    """The groups that have segments."""
    return [Group(name, *column) for name, column in zip(names, table.T.tolist()) if sum(column[1:])]
