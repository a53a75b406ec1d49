"""The report of a split: the facts about all of its records, summed up."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator

from deeplab2_kmax.dataset_check.faults import Fault, FaultKind
from deeplab2_kmax.dataset_check.labels import divisor_fault, summarize
from deeplab2_kmax.dataset_check.records import RecordFacts
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.names import result_name
from deeplab2_kmax.wording import one_line, some_of

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
    return f"{place.shard}, record {place.index}" + (f" ({one_line(name)})" if name else "")


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
    sums = _Sums(descriptor)
    for place, facts in found:
        sums.add(place, facts)
    faults = sums.faults
    if not sums.counts["records"]:
        faults.append(Fault(FaultKind.NO_RECORDS, "expected at least one record, got none"))
    if has_labels and sums.places:
        faults += _faults_of_all(descriptor, sums.ids, sums.largest_instance, sums.classes)
    return Report(
        title=title,
        descriptor=descriptor,
        shards=tuple(shards),
        records=sums.counts["records"],
        labelled=len(sums.places),
        classes=sums.classes,
        pixels=sums.counts["pixels"],
        void=sums.counts["void"],
        crowd=sums.counts["crowd"],
        things=tuple(sums.things),
        largest_instance=sums.largest_instance,
        faults=tuple(faults),
        faulty=tuple(sums.faulty),
        places=tuple(sums.places),
        names=frozenset(sums.first_of_name),
    )


class _Sums:
    """What the records of a split amount to so far; attributes as of `Report`, and:

    Attributes:
        counts: of "records", and of the "pixels", "void" and "crowd" pixels of the labels.
        ids: all panoptic ids that occur.
        first_of_name: {name of an image: the first record that has it}.
        first_of_file: {`result_name`: the first record and its name}.
    """

    def __init__(self, descriptor: DatasetDescriptor) -> None:
        self.descriptor = descriptor
        self.counts: collections.Counter[str] = collections.Counter()
        self.classes = {c.id: ClassCount() for c in descriptor.classes}
        self.faults: list[Fault] = []
        self.faulty: list[Place] = []
        self.places: list[Place] = []
        self.things: list[int] = []
        self.ids: set[int] = set()
        self.first_of_name: dict[str, Place] = {}
        self.first_of_file: dict[str, tuple[Place, str]] = {}
        self.largest_instance = 0

    def add(self, place: Place, facts: RecordFacts) -> None:
        """Adds the record at `place`."""
        # A damaged stretch of a file is reported in the place of a record, but is none.
        self.counts["records"] += not any(fault.kind is FaultKind.DAMAGED_SHARD for fault in facts.faults)
        found = [*facts.faults, *self._duplicate_name(place, facts), *self._shared_file(place, facts)]
        self.faults += [Fault(kind, f"{describe(place, facts.name)}: {text}") for kind, text in found]
        if found:
            self.faulty.append(place)
        if facts.areas is not None:
            self._add_label(place, facts.areas)

    def _duplicate_name(self, place: Place, facts: RecordFacts) -> Iterator[Fault]:
        """A fault if an earlier record has the same name."""
        if _has_name(facts):
            first = self.first_of_name.setdefault(facts.name, place)
            if first != place:
                text = f"its image has the same name as that of {describe(first, '')}"
                yield Fault(FaultKind.DUPLICATE_NAME, text)

    def _shared_file(self, place: Place, facts: RecordFacts) -> Iterator[Fault]:
        """A fault if evaluation would write this record and an earlier one of another name into one file."""
        if _has_name(facts):
            file = result_name(facts.name)
            first, name = self.first_of_file.setdefault(file, (place, facts.name))
            if name != facts.name:
                text = f"its results would have the name {file!r} of those of {describe(first, name)}"
                yield Fault(FaultKind.SHARED_FILE, f"{text}; evaluation adds a checksum to one of them")

    def _add_label(self, place: Place, areas: dict[int, int]) -> None:
        """Adds the label of the record at `place`, given by its `segment_areas`."""
        self.places.append(place)
        self.ids.update(areas)
        summary = summarize(areas, self.descriptor)
        self.counts.update(pixels=summary.pixels, void=summary.void, crowd=summary.crowd)
        self.things.append(summary.things)
        self.largest_instance = max(self.largest_instance, summary.largest_instance)
        for class_id, (segments, pixels) in summary.classes.items():
            before = self.classes[class_id]
            self.classes[class_id] = ClassCount(before.images + 1, before.segments + segments, before.pixels + pixels)


def _has_name(facts: RecordFacts) -> bool:
    """Whether the name of a record could be read; an empty one is a name, too."""
    return bool(facts.name) or any(fault.kind is FaultKind.UNSAFE_NAME for fault in facts.faults)


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
