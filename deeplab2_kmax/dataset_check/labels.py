"""The content and the faults of a panoptic label, as far as its ids and their areas tell."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from deeplab2_kmax.dataset_check.faults import Fault, FaultKind, Limits
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.records.label_runs import LabelRuns
from deeplab2_kmax.wording import counted

# The divisors that are tried as the one that was meant: those of the shipped data sets, 256 (COCO) and 1000 (ADE20K,
# Cityscapes), and the powers of ten and of two that others choose for fewer or more instances. Labels of a divisor that
# is missing here are refused as well, only without the hint.
_USUAL_DIVISORS = (100, 256, 1000, 1024, 10000, 65536, 100000)


class LabelSummary(NamedTuple):
    """The content of a label.

    Attributes:
        pixels: the number of pixels.
        void: the number of void pixels.
        crowd: the number of pixels of thing classes with instance id 0.
        things: the number of thing instances.
        segments: the number of thing instances and stuff classes, each of which needs a mask slot of the model.
        largest_instance: the largest instance id of a thing; 0 if there are no things.
        classes: {class id: (segments, pixels)} of the classes that occur; a crowd counts as a segment.
    """

    pixels: int
    void: int
    crowd: int
    things: int
    segments: int
    largest_instance: int
    classes: dict[int, tuple[int, int]]


def segment_areas(label: np.ndarray) -> dict[int, int]:
    """{panoptic id: number of pixels} of a label, an integer array [height, width]."""
    return dict(LabelRuns(label).items())


def summarize(areas: Mapping[int, int], descriptor: DatasetDescriptor) -> LabelSummary:
    """Sums up a label by its `segment_areas`. Ids of classes that do not exist only count as pixels."""
    void = crowd = things = stuff = largest = 0
    classes: dict[int, tuple[int, int]] = {}
    for panoptic_id, area in areas.items():
        class_id, instance = divmod(panoptic_id, descriptor.label_divisor)
        if class_id == descriptor.ignore_label:
            void += area
        if class_id not in descriptor.by_id:
            continue
        segments, pixels = classes.get(class_id, (0, 0))
        classes[class_id] = (segments + 1, pixels + area)
        if not descriptor.by_id[class_id].is_thing:
            stuff += segments == 0
        elif instance:
            things += 1
            largest = max(largest, instance)
        else:
            crowd += area
    return LabelSummary(sum(areas.values()), void, crowd, things, things + stuff, largest, classes)


def label_faults(areas: Mapping[int, int], descriptor: DatasetDescriptor, limits: Limits) -> list[Fault]:
    """The faults of one label, by its `segment_areas`; the sentences do not name file and record."""
    faults = [*_id_faults(areas, descriptor)]
    summary = summarize(areas, descriptor)
    if limits.max_thing_id is not None and summary.things > limits.max_thing_id:
        faults.append(
            Fault(
                FaultKind.TOO_MANY_THINGS,
                f"{counted(summary.things, 'thing')}, but max_thing_id of the config is {limits.max_thing_id}",
            )
        )
    if limits.num_mask_slots is not None and summary.segments > limits.num_mask_slots:
        faults.append(
            Fault(
                FaultKind.MORE_SEGMENTS_THAN_SLOTS,
                f"{counted(summary.segments, 'segment')} ({counted(summary.things, 'thing')} and"
                f" {counted(summary.segments - summary.things, 'stuff class', 'stuff classes')}), but the model has"
                f" {counted(limits.num_mask_slots, 'mask slot')}; the rest cannot be learned",
            )
        )
    if summary.void == summary.pixels:
        faults.append(Fault(FaultKind.NOTHING_LABELLED, "every pixel is void, so nothing is learned from it"))
    if summary.crowd and not summary.things:
        share = 100 * summary.crowd / summary.pixels
        faults.append(
            Fault(
                FaultKind.ONLY_CROWDS,
                f"{share:.1f} % of the pixels are things, all with instance id 0, which means a crowd; instances have"
                " to be numbered from 1",
            )
        )
    return faults


def _id_faults(areas: Mapping[int, int], descriptor: DatasetDescriptor) -> Iterator[Fault]:
    """Classes that do not exist, and stuff with instance ids."""
    unknown: collections.Counter[int] = collections.Counter()
    numbered: collections.Counter[int] = collections.Counter()
    for panoptic_id, area in areas.items():
        class_id, instance = divmod(panoptic_id, descriptor.label_divisor)
        if class_id == descriptor.ignore_label:
            continue
        if class_id not in descriptor.by_id:
            unknown[class_id] += area
        elif instance and not descriptor.by_id[class_id].is_thing:
            numbered[class_id] += area
    for class_id, area in sorted(unknown.items()):
        example = next(i for i in areas if i // descriptor.label_divisor == class_id)
        yield Fault(
            FaultKind.UNKNOWN_CLASS,
            f"{counted(area, 'pixel')} of class {class_id} (panoptic id {example} = {class_id} *"
            f" {descriptor.label_divisor} + {example % descriptor.label_divisor}), which is not in {descriptor.name}",
        )
    for class_id, area in sorted(numbered.items()):
        yield Fault(
            FaultKind.STUFF_INSTANCE,
            f"{counted(area, 'pixel')} of {descriptor.by_id[class_id].name!r} (class {class_id}) with an instance id;"
            " it is stuff, which has instance id 0 only",
        )


def divisor_fault(ids: Iterable[int], descriptor: DatasetDescriptor) -> Fault | None:
    """Looks for the label divisor that was meant, where the panoptic ids of a data set do not fit the one it has.

    Args:
        ids: all panoptic ids that occur.
        descriptor: the data set.

    Returns:
        None if the ids fit the divisor of the data set, or no usual divisor.
    """
    ids = list(ids)
    if _fit(ids, descriptor, descriptor.label_divisor):
        return None
    # A divisor that makes void with instance ids explains nothing: one larger than all ids would make them all class 0,
    # which is void in many data sets.
    fitting = [
        divisor
        for divisor in _USUAL_DIVISORS
        if _fit(ids, descriptor, divisor)
        and not any(i // divisor == descriptor.ignore_label and i % divisor for i in ids)
    ]
    if not fitting:
        return None
    return Fault(
        FaultKind.DIVISOR,
        f"the descriptor has label_divisor {descriptor.label_divisor}, which some labels do not fit; all of them fit"
        f" {' or '.join(map(str, fitting))}",
    )


def _fit(ids: Iterable[int], descriptor: DatasetDescriptor, divisor: int) -> bool:
    """Whether all panoptic ids are those of classes that exist, with instance ids for things only."""
    for panoptic_id in ids:
        class_id, instance = divmod(panoptic_id, divisor)
        if class_id == descriptor.ignore_label:
            continue
        if class_id not in descriptor.by_id or (instance and not descriptor.by_id[class_id].is_thing):
            return False
    return True
