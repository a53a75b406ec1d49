"""The descriptor of a panoptic data set. Its fields are checked whenever one is made, also in code."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterable

from deeplab2_kmax.errors import ConfigError

_INT32_MAX = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class SegmentClass:
    """One class of a data set.

    Attributes:
        id: the class id in label maps, records and predictions (`semantic` in `semantic * label_divisor + instance`).
        name: what people call it.
        is_thing: True for countable objects, each a segment of its own; False for stuff, one segment an image.
        color: RGB, 0..255.
        source_id: the id of the class in the data set's own annotation files.
    """

    id: int
    name: str
    is_thing: bool
    color: tuple[int, int, int]
    source_id: int


@dataclasses.dataclass(frozen=True)
class DatasetDescriptor:
    """Classes and label encoding of a panoptic data set.

    A panoptic id is `semantic * label_divisor + instance`: things count instances of a class from 1, stuff has
    instance 0, a crowd region is a thing class with instance 0, and void is the ignore label with instance 0.

    Attributes:
        name: the name under which configs ask for it.
        classes: ordered by ascending id; void is not among them.
        num_classes: channels of a semantic map that holds every class id, i.e. larger than the largest id.
        ignore_label: the class id of void (unlabelled) pixels.
        label_divisor: one more than the largest instance number.

    Raises:
        ConfigError: two classes share an id, a source id or a name; the ignore label is a class; ids, colours or the
            divisor out of range; labels that would not fit an int32.
    """

    name: str
    classes: tuple[SegmentClass, ...]
    num_classes: int
    ignore_label: int
    label_divisor: int

    def __post_init__(self):
        object.__setattr__(self, "classes", tuple(sorted(self.classes, key=lambda c: c.id)))
        for problem in _problems(self):
            raise ConfigError(f"data set {self.name!r}: {problem}")

    @functools.cached_property
    def thing_class_ids(self) -> tuple[int, ...]:
        """Ids of the thing classes, ascending."""
        return tuple(c.id for c in self.classes if c.is_thing)

    @functools.cached_property
    def stuff_class_ids(self) -> tuple[int, ...]:
        """Ids of the stuff classes, ascending."""
        return tuple(c.id for c in self.classes if not c.is_thing)

    @property
    def index_to_class_id(self) -> tuple[int, ...]:
        """The class id of each channel of the class logits but the last (void): things first, then stuff."""
        return self.thing_class_ids + self.stuff_class_ids

    @property
    def void_id(self) -> int:
        """The panoptic id of void pixels."""
        return self.ignore_label * self.label_divisor

    @functools.cached_property
    def by_id(self) -> dict[int, SegmentClass]:
        """Classes by class id; void is absent."""
        return {c.id: c for c in self.classes}

    @functools.cached_property
    def by_source_id(self) -> dict[int, SegmentClass]:
        """Classes by the id they have in the data set's own annotation files."""
        return {c.source_id: c for c in self.classes}


def _problems(descriptor: DatasetDescriptor) -> Iterable[str]:
    """What is wrong with a descriptor, worst first."""
    if not descriptor.classes:
        yield "expected at least one class, came none"
    for field in ("id", "source_id", "name"):
        counts = collections.Counter(getattr(c, field) for c in descriptor.classes)
        repeated = sorted(str(value) for value, count in counts.items() if count > 1)
        if repeated:
            yield f"expected every class to have its own {field}, came more than one with {', '.join(repeated)}"
    largest_id = descriptor.num_classes - 1
    for c in descriptor.classes:
        if not 0 <= c.id < descriptor.num_classes:
            yield f"class {c.name!r}: expected an id from 0 to num_classes - 1 = {largest_id}, came {c.id}"
        if c.id == descriptor.ignore_label:
            yield f"expected an ignore_label that is no class, came {c.id}, the id of class {c.name!r}"
        if len(c.color) != 3 or not all(0 <= channel <= 255 for channel in c.color):
            yield f"class {c.name!r}: expected a color of three numbers 0..255, came {c.color}"
    if descriptor.ignore_label < 0:
        yield f"expected ignore_label >= 0, came {descriptor.ignore_label}"
    if descriptor.label_divisor < 2:
        yield f"expected label_divisor >= 2 (instances count from 1), came {descriptor.label_divisor}"
    largest = max(largest_id, descriptor.ignore_label)
    if (largest + 1) * descriptor.label_divisor - 1 > _INT32_MAX:
        yield f"labels up to {largest} * label_divisor {descriptor.label_divisor} do not fit an int32"
