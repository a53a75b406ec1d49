"""What is wrong with each segment of an image: missed, of a wrong class, split, merged, inexact, or invented.

Each segment that panoptic quality counts as a false negative or a false positive gets one kind, the first that fits:

- wrong class: a segment of another class covers it with an IoU above 1/2.
- merged: one predicted segment of the class covers more than half of it and more than half of another true one.
- split: two or more predicted segments of the class lie in it for the most part, and cover more than a quarter of it.
- inexact: a segment of the class overlaps it, with an IoU of 1/4 to 1/2.
- missed, or for a predicted segment invented: none of these.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from deeplab2_kmax.evaluation.panoptic_quality import VOID, Segments, match_segments

_MATCH, _PART = 0.5, 0.25


class Kind(enum.Enum):
    """What is wrong with a segment; the value is how people call it."""

    MISSED = "missed"
    WRONG_CLASS = "wrong class"
    SPLIT = "split"
    MERGED = "merged"
    INEXACT = "inexact"
    INVENTED = "invented"


@dataclasses.dataclass(frozen=True)
class SegmentErrors:
    """The errors of one image.

    Attributes:
        of_truth: for each true segment its kind; None where it is right, void, or a crowd.
        of_prediction: for each predicted segment its kind; None where it is right, void, or excused.
        confused: pairs of true and predicted class of segments of a wrong class.
        matched: bool [T, P], pairs that match.
        iou: float64 [T, P], of pairs of one class.
    """

    of_truth: list[Kind | None]
    of_prediction: list[Kind | None]
    confused: list[tuple[int, int]]
    matched: np.ndarray
    iou: np.ndarray

    def counts(self) -> dict[Kind, int]:
        """How many errors there are of each kind; a predicted segment counts only where it is invented.

        The others, such as the parts of a split segment, are the other side of an error that is counted already.
        """
        counts = {kind: self.of_truth.count(kind) for kind in Kind}
        counts[Kind.INVENTED] = self.of_prediction.count(Kind.INVENTED)
        return counts


def segment_errors(truth: Segments, prediction: Segments, overlaps: np.ndarray) -> SegmentErrors:
    """Finds the kind of each error.

    Args:
        truth: true segments, void among them.
        prediction: predicted segments.
        overlaps: float64 [T, P], pixels that a true and a predicted segment share.
    """
    matches = match_segments(truth, prediction, overlaps)
    real = (truth.classes >= 0) & ~truth.crowd
    of_void = overlaps[truth.classes == VOID].sum(0)
    unions = truth.areas[:, np.newaxis] + prediction.areas - overlaps - of_void
    any_iou = np.where(overlaps > 0, overlaps / np.maximum(unions, 1), 0)
    any_iou[~real] = 0
    any_iou[:, prediction.classes < 0] = 0
    # Only segments that are wrong on both sides explain each other.
    open_pairs = matches.missed[:, np.newaxis] & matches.false_positive
    same = truth.classes[:, np.newaxis] == prediction.classes
    of_one_class = same & real[:, np.newaxis]

    of_truth: list[Kind | None] = [Kind.MISSED if wrong else None for wrong in matches.missed]
    of_prediction: list[Kind | None] = [Kind.INVENTED if wrong else None for wrong in matches.false_positive]
    # The last kind that is set wins, so the most telling one comes last.
    _mark(of_truth, of_prediction, of_one_class & open_pairs & (any_iou > _PART), Kind.INEXACT)
    shares_of_prediction = overlaps / np.maximum(prediction.areas, 1)
    parts = of_one_class & (shares_of_prediction > _MATCH)
    covered = (overlaps * parts).sum(1) > _PART * truth.areas
    is_split = matches.missed & (parts.sum(1) >= 2) & covered
    _mark(of_truth, of_prediction, parts & is_split[:, np.newaxis] & open_pairs, Kind.SPLIT)
    swallowed = of_one_class & (overlaps > _MATCH * truth.areas[:, np.newaxis])
    merges = swallowed & (swallowed.sum(0) >= 2)
    # The predicted segment may match one of the two and be right.
    for row in np.flatnonzero(merges.any(1) & matches.missed):
        of_truth[row] = Kind.MERGED
    _mark([None] * len(of_truth), of_prediction, merges & open_pairs, Kind.MERGED)
    wrong = ~same & (any_iou > _MATCH) & open_pairs
    _mark(of_truth, of_prediction, wrong, Kind.WRONG_CLASS)
    rows, columns = np.nonzero(wrong)
    confused = list(zip(truth.classes[rows].tolist(), prediction.classes[columns].tolist()))
    return SegmentErrors(of_truth, of_prediction, confused, matches.matched, matches.iou)


def _mark(of_truth: list[Kind | None], of_prediction: list[Kind | None], pairs: np.ndarray, kind: Kind) -> None:
    """Gives both segments of each pair, bool [T, P], this kind."""
    for row in np.flatnonzero(pairs.any(1)):
        of_truth[row] = kind
    for column in np.flatnonzero(pairs.any(0)):
        of_prediction[column] = kind
