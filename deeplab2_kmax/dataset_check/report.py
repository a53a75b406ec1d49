"""The facts of all records of a split, summed up."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable

from deeplab2_kmax.dataset_check.faults import Fault, FaultKind
from deeplab2_kmax.dataset_check.labels import divisor_fault, summarize
from deeplab2_kmax.dataset_check.records import RecordFacts
from deeplab2_kmax.datasets import DatasetDescriptor

_LISTED_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Place:
    """A record: its file, and its index there from 0."""

    shard: str
    index: int


@dataclasses.dataclass(frozen=True)
class ClassCount:
    """How often a class occurs: images it is in, segments (crowds among them), pixels."""

    images: int = 0
    segments: int = 0
    pixels: int = 0


@dataclasses.dataclass(frozen=True)
class Report:
    """What a check found in one split.

    Attributes:
        title: what the split is called, such as "train".
        descriptor: the data set.
        shards: the files that were read.
        records: how many there are.
        labelled: how many have a label that could be read.
        classes: counts by class id, also of those that never occur.
        pixels: labelled or void.
        void: pixels.
        crowd: pixels.
        things: things of each labelled image.
        largest_instance: the largest instance number of a thing.
        faults: all of them, those of a record beginning with its place.
        faulty: where records with a fault lie, in order.
        places: where the labelled records lie, in order.
        names: of the images.
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
        """Whether nothing was found that stops training."""
        return not any(fault.kind.stops_training for fault in self.faults)


def describe(place: Place, name: str) -> str:
    """How sentences name a record."""
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
        title: what the split is called.
        descriptor: the data set.
        shards: the files that were read.
        found: the facts of each record, in order.
        has_labels: whether records should have labels.
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
        counts["records"] += not any(fault.kind is FaultKind.DAMAGED_SHARD for fault in facts.faults)
        own = list(facts.faults)
        if facts.name:
            first = first_of_name.setdefault(facts.name, place)
            if first != place:
                own.append(Fault(FaultKind.DUPLICATE_NAME, f"has the name of {describe(first, '')}, too"))
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
        faults.append(Fault(FaultKind.NO_RECORDS, "expected at least one record, came none"))
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
) -> Iterable[Fault]:
    """What only shows in all labels together."""
    fault = divisor_fault(ids, descriptor)
    if fault is not None:
        yield fault
    if largest == descriptor.label_divisor - 1:
        yield Fault(
            FaultKind.INSTANCES_REACH_DIVISOR,
            f"the largest instance number is {largest}, the last that label_divisor {descriptor.label_divisor} allows;"
            " larger ones, if there were any, have become instances of the next class",
        )
    absent = [f"{c.name!r}" for c in descriptor.classes if not classes[c.id].images]
    if absent:
        more = f" and {len(absent) - _LISTED_CLASSES} more" if len(absent) > _LISTED_CLASSES else ""
        yield Fault(FaultKind.ABSENT_CLASS, f"no image has {', '.join(absent[:_LISTED_CLASSES])}{more}")
