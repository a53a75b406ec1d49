"""The kinds of faults that a data set can have, and whether training can start in spite of them."""

from __future__ import annotations

import enum
from typing import NamedTuple


class FaultKind(enum.Enum):
    """A kind of fault. The value is its heading in reports."""

    NO_RECORDS = "no records"
    MISSING_SHARD = "missing files"
    DAMAGED_SHARD = "damaged files"
    BROKEN_RECORD = "records with missing or unusable fields"
    BROKEN_IMAGE = "images that cannot be decoded"
    SIZE = "sizes that differ between image and label"
    DIVISOR = "label_divisor"
    UNKNOWN_CLASS = "ids outside the class list"
    STUFF_INSTANCE = "instance numbers on stuff"
    TOO_MANY_THINGS = "more things than max_thing_id"
    MORE_SEGMENTS_THAN_SLOTS = "more segments than mask slots"
    INSTANCES_REACH_DIVISOR = "instance numbers up to the label_divisor"
    NOTHING_LABELLED = "images with void pixels only"
    ONLY_CROWDS = "things without any instance"
    DUPLICATE_NAME = "names of more than one image"
    UNSAFE_NAME = "names that no file can have"
    SHARED_FILE = "names that lead to one file of results"
    ABSENT_CLASS = "classes that never occur"
    UNUSABLE_MANIFEST = "manifests that tell nothing"

    @property
    def stops_training(self) -> bool:
        """Whether training would end with an error, or learn from wrong labels."""
        return self not in _TOLERABLE


_TOLERABLE = frozenset(
    [
        FaultKind.MORE_SEGMENTS_THAN_SLOTS,
        FaultKind.INSTANCES_REACH_DIVISOR,
        FaultKind.NOTHING_LABELLED,
        FaultKind.ONLY_CROWDS,
        FaultKind.DUPLICATE_NAME,
        FaultKind.UNSAFE_NAME,
        FaultKind.SHARED_FILE,
        FaultKind.ABSENT_CLASS,
        FaultKind.UNUSABLE_MANIFEST,
    ]
)


class Fault(NamedTuple):
    """One fault, as a sentence. In reports, the sentence about a record begins with its file, index and name."""

    kind: FaultKind
    text: str


class Limits(NamedTuple):
    """The limits of the model and the input pipeline; a limit that is None is not checked.

    Attributes:
        max_thing_id: how many thing instances an image may have at most.
        num_mask_slots: how many segments, things and stuff together, the model can predict for an image.
    """

    max_thing_id: int | None = None
    num_mask_slots: int | None = None


NO_LIMITS = Limits()
