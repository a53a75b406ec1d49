"""The report of a split: the facts about all of its records, summed up."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator

from deeplab2_kmax.dataset_check.faults import Fault, FaultKind
from deeplab2_kmax.dataset_check.labels import divisor_fault, summarize
from deeplab2_kmax.dataset_check.records import RecordFacts
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.wording import some_of

_NAMED_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a record is: its file, and its index there, from 0."""

    shard: str
    index: int


@dataclasses.dataclass(frozen=True)
class ClassCount:
    """How often a class occurs: the number of images that have it, of its segments (with crowds) and of its pixels."""

    images: int = 0
    segments: int = 0
    pixels: int = 0


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of the check of one split.

    Attributes:
        title: the name of the split, such as "train".
        descriptor: the data set.
        shards: the files that were read.
        records: the number of records.
        labelled: the number of records with a label that can be read.
        classes: {class id: its counts}, also of classes that never occur.
        pixels: the number of pixels of all labels, void included.
        void: the number of void pixels.
        crowd: the number of pixels of crowds.
        things: the number of things in each labelled image.
        largest_instance: the largest instance id of a thing.
        faults: all faults; the sentence about a record begins with its place.
        faulty: the places of the records that have a fault, in order.
        places: the places of the labelled records, in order.
        names: the names of the images.
    """

    title: str
    descriptor: DatasetDescriptor
    shards: tuple[str, ...]
    records: int
    labelled: int
    classes: dict[int, ClassCount]
    pixels: int
    void: int
    crowd: int
    things: tuple[int, ...]
    largest_instance: int
    faults: tuple[Fault, ...]
    faulty: tuple[Place, ...]
    places: tuple[Place, ...]
    names: frozenset[str]

    @property
    def can_train(self) -> bool:
        """Whether none of the faults stops training."""
        return not any(fault.kind.stops_training for fault in self.faults)


def describe(place: Place, name: str) -> str:
    """The words by which sentences name a record."""
    return f"{place.shard}, record {place.index}" + (f" ({name})" if name else "")


def make_report(
    title: str,
    descriptor: DatasetDescriptor,
    shards: Iterable[str],
    found: Iterable[tuple[Place, RecordFacts]],
    has_labels: bool = True,
) -> Report:
    """Sums up the records of a split.

    Args:
        title: the name of the split.
        descriptor: the data set.
        shards: the files that were read.
        found: the place of each record and the facts about it, in order.
        has_labels: whether the records should have labels.
    """
    counts: collections.Counter[str] = collections.Counter()
    classes = {c.id: ClassCount() for c in descriptor.classes}
    faults: list[Fault] = []
    faulty: list[Place] = []
    places: list[Place] = []
    things: list[int] = []
    ids: set[int] = set()
    first_of_name: dict[str, Place] = {}
    largest = 0
    for place, facts in found:
        # A damaged stretch of a file is reported in the place of a record, but is none.
        counts["records"] += not any(fault.kind is FaultKind.DAMAGED_SHARD for fault in facts.faults)
        own = list(facts.faults)
        if facts.name:
            first = first_of_name.setdefault(facts.name, place)
            if first != place:
                text = f"its image has the same name as that of {describe(first, '')}"
                own.append(Fault(FaultKind.DUPLICATE_NAME, text))
        faults += [Fault(kind, f"{describe(place, facts.name)}: {text}") for kind, text in own]
        if own:
            faulty.append(place)
        if facts.areas is None:
            continue
        places.append(place)
        ids.update(facts.areas)
        summary = summarize(facts.areas, descriptor)
        counts.update(pixels=summary.pixels, void=summary.void, crowd=summary.crowd)
        things.append(summary.things)
        largest = max(largest, summary.largest_instance)
        for class_id, (segments, pixels) in summary.classes.items():
            before = classes[class_id]
            classes[class_id] = ClassCount(before.images + 1, before.segments + segments, before.pixels + pixels)
    if not counts["records"]:
        faults.append(Fault(FaultKind.NO_RECORDS, "expected at least one record, got none"))
    if has_labels and places:
        faults += _faults_of_all(descriptor, ids, largest, classes)
    return Report(
        title=title,
        descriptor=descriptor,
        shards=tuple(shards),
        records=counts["records"],
        labelled=len(places),
        classes=classes,
        pixels=counts["pixels"],
        void=counts["void"],
        crowd=counts["crowd"],
        things=tuple(things),
        largest_instance=largest,
        faults=tuple(faults),
        faulty=tuple(faulty),
        places=tuple(places),
        names=frozenset(first_of_name),
    )


def _faults_of_all(
    descriptor: DatasetDescriptor, ids: set[int], largest: int, classes: dict[int, ClassCount]
) -> Iterator[Fault]:
    """The faults that only all labels together show.

    Args:
        descriptor: the data set.
        ids: all panoptic ids that occur.
        largest: the largest instance id of a thing.
        classes: how often each class occurs.
    """
    fault = divisor_fault(ids, descriptor)
    if fault is not None:
        yield fault
    if largest == descriptor.label_divisor - 1:
        yield Fault(
            FaultKind.INSTANCES_REACH_DIVISOR,
            f"the largest instance id is {largest}, the last that label_divisor {descriptor.label_divisor} allows; if"
            " there were larger ones, they have become instances of the next class",
        )
    absent = [f"{c.name!r}" for c in descriptor.classes if not classes[c.id].images]
    if absent:
        yield Fault(FaultKind.ABSENT_CLASS, f"no image has {some_of(absent, _NAMED_CLASSES)}")
