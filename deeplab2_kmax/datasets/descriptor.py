"""The descriptor of a panoptic data set, whose fields are checked whenever one is made, from a file or in code."""

from __future__ import annotations

import collections
import dataclasses
import functools
import unicodedata
from collections.abc import Iterator

from deeplab2_kmax.errors import ConfigError

_INT32_MAX = 2**31 - 1
# The confusion matrix of evaluation has num_classes x num_classes entries: 800 MB.
_MOST_CLASSES = 10_000


@dataclasses.dataclass(frozen=True)
class SegmentClass:
    """One class of a data set.

    Attributes:
        id: the class id in label maps, records and predictions, see `DatasetDescriptor`.
        name: the name that people read.
        is_thing: True for a thing class, whose objects are counted: each is a segment. False for a stuff class, whose
            pixels in an image are one segment.
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

    A panoptic id is `class id * label_divisor + instance id`. The instances of a thing class are numbered from 1; stuff
    has instance id 0. A crowd, a region of things that are not told apart, is a thing class with instance id 0. Void is
    the ignore label with instance id 0.

    Attributes:
        name: the name in configs.
        classes: the classes by ascending id; void is not among them.
        num_classes: larger than every class id; the number of channels of a semantic map.
        ignore_label: the class id of void (unlabelled) pixels.
        label_divisor: larger than every instance id.

    Raises:
        ConfigError: two classes share an id, a source id or a name; the ignore label is the id of a class; an id, a
            color, the divisor or `num_classes` (at most 10,000) is out of range; a name is empty or cannot be shown;
            panoptic ids would not fit an int32.
    """

    name: str
    classes: tuple[SegmentClass, ...]
    num_classes: int
    ignore_label: int
    label_divisor: int

    def __post_init__(self) -> None:
        # How a field of a frozen dataclass is set.
        object.__setattr__(self, "classes", tuple(sorted(self.classes, key=lambda c: c.id)))
        for problem in _problems(self):
            raise ConfigError(f"data set {self.name!r}: {problem}")

    @functools.cached_property
    def thing_class_ids(self) -> tuple[int, ...]:
        """The ids of the thing classes, ascending."""
        return tuple(c.id for c in self.classes if c.is_thing)

    @functools.cached_property
    def stuff_class_ids(self) -> tuple[int, ...]:
        """The ids of the stuff classes, ascending."""
        return tuple(c.id for c in self.classes if not c.is_thing)

    @property
    def index_to_class_id(self) -> tuple[int, ...]:
        """The class id of each channel of the class logits but the last, which is void: things, then stuff."""
        return self.thing_class_ids + self.stuff_class_ids

    @property
    def void_id(self) -> int:
        """The panoptic id of void pixels."""
        return self.ignore_label * self.label_divisor

    @functools.cached_property
    def by_id(self) -> dict[int, SegmentClass]:
        """The classes by class id; void is not among them."""
        return {c.id: c for c in self.classes}

    @functools.cached_property
    def by_source_id(self) -> dict[int, SegmentClass]:
        """The classes by their ids in the data set's own annotation files."""
        return {c.source_id: c for c in self.classes}


def _problems(descriptor: DatasetDescriptor) -> Iterator[str]:
    """The mistakes in a descriptor, worst first."""
    if not descriptor.classes:
        yield "expected at least one class, got none"
    for what, name in [("data set", descriptor.name), *(("class", c.name) for c in descriptor.classes)]:
        if not name.strip() or not _can_be_shown(name):
            yield f"expected a name of the {what} that is not empty and can be shown, got {name!r}"
    for field in ("id", "source_id", "name"):
        counts = collections.Counter(getattr(c, field) for c in descriptor.classes)
        repeated = sorted(str(value) for value, count in counts.items() if count > 1)
        if repeated:
            yield f"expected every class to have its own {field}, got more than one with {', '.join(repeated)}"
    largest_id = descriptor.num_classes - 1
    for c in descriptor.classes:
        if not 0 <= c.id < descriptor.num_classes:
            yield f"class {c.name!r}: expected an id from 0 to num_classes - 1 = {largest_id}, got {c.id}"
        if c.id == descriptor.ignore_label:
            yield f"expected an ignore_label that is no class, got {c.id}, the id of class {c.name!r}"
        if len(c.color) != 3 or not all(0 <= channel <= 255 for channel in c.color):
            yield f"class {c.name!r}: expected a color of three numbers 0..255, got {c.color}"
    if descriptor.num_classes > _MOST_CLASSES:
        yield f"expected at most {_MOST_CLASSES:,} as num_classes, got {descriptor.num_classes:,}"
    if descriptor.ignore_label < 0:
        yield f"expected ignore_label >= 0, got {descriptor.ignore_label}"
    if descriptor.label_divisor < 2:
        yield f"expected label_divisor >= 2 (instances count from 1), got {descriptor.label_divisor}"
    # Panoptic ids are int32 in records, and void may have the largest of them.
    largest = max(largest_id, descriptor.ignore_label)
    if (largest + 1) * descriptor.label_divisor - 1 > _INT32_MAX:
        yield f"labels up to {largest} * label_divisor {descriptor.label_divisor} do not fit an int32"


def _can_be_shown(name: str) -> bool:
    """Whether a name has neither line breaks and their kin, nor halves of characters."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)
