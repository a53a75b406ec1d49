"""What can be wrong with a data set, and whether training can start in spite of it."""

from __future__ import annotations

import enum
from typing import NamedTuple


class FaultKind(enum.Enum):
    """A kind of fault. The value is its heading."""

    NO_RECORDS = "no records"
    DAMAGED_SHARD = "damaged files"
    BROKEN_RECORD = "records that lack something"
    BROKEN_IMAGE = "images that cannot be decoded"
    SIZE = "sizes that differ between image and label"
    DIVISOR = "label_divisor"
    UNKNOWN_CLASS = "ids outside the class list"
    STUFF_INSTANCE = "instance numbers on stuff"
    TOO_MANY_THINGS = "more things than max_thing_id"
    MORE_SEGMENTS_THAN_SLOTS = "more segments than mask slots"
    INSTANCES_REACH_DIVISOR = "instance numbers up to the label_divisor"
    NOTHING_LABELLED = "images that are void all over"
    ONLY_CROWDS = "things without any instance"
    DUPLICATE_NAME = "names that come more than once"
    ABSENT_CLASS = "classes that never occur"

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
        FaultKind.ABSENT_CLASS,
    ]
)


class Fault(NamedTuple):
    """One fault as a sentence; of a single record the sentence begins with file, record index and name."""

    kind: FaultKind
    text: str


class Limits(NamedTuple):
    """What the model and the pipeline allow; None: not checked.

    Attributes:
        max_thing_id: the most thing instances an image may have.
        num_mask_slots: the most segments, things and stuff, that a model can tell apart.
    """

    max_thing_id: int | None = None
    num_mask_slots: int | None = None


NO_LIMITS = Limits()
