"""What a panoptic label holds and what is wrong with it: functions of its ids and their areas alone."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from deeplab2_kmax.dataset_check.faults import Fault, FaultKind, Limits
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.records.label_runs import LabelRuns

# Divisors that data sets use: COCO's and ADE20K's or Cityscapes', and round numbers beside them.
_USUAL_DIVISORS = (100, 256, 1000, 1024, 10000, 65536, 100000)


class LabelSummary(NamedTuple):
    """What is in a label.

    Attributes:
        pixels: all of them.
        void: pixels without a label.
        crowd: pixels of thing classes with instance number 0.
        things: instances.
        segments: instances, and stuff classes that occur; what a model needs mask slots for.
        largest_instance: the largest instance number of a thing; 0 where there is none.
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
    """{panoptic id: pixels} of a label [height, width] of integers."""
    runs = LabelRuns(label)
    return dict(zip(runs.values.tolist(), runs.areas.tolist()))


def summarize(areas: Mapping[int, int], descriptor: DatasetDescriptor) -> LabelSummary:
    """Sums up a label by its `segment_areas`. Ids outside the class list count as pixels only."""
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
    """The faults of one label, by its `segment_areas`; the sentences say neither file nor record."""
    faults = [*_id_faults(areas, descriptor)]
    summary = summarize(areas, descriptor)
    if limits.max_thing_id is not None and summary.things > limits.max_thing_id:
        faults.append(
            Fault(
                FaultKind.TOO_MANY_THINGS,
                f"{summary.things} things, but max_thing_id of the config is {limits.max_thing_id}",
            )
        )
    if limits.num_mask_slots is not None and summary.segments > limits.num_mask_slots:
        faults.append(
            Fault(
                FaultKind.MORE_SEGMENTS_THAN_SLOTS,
                f"{summary.segments} segments ({summary.things} things and {summary.segments - summary.things} stuff"
                f" classes), but the model has {limits.num_mask_slots} mask slots; the rest cannot be learned",
            )
        )
    if summary.void == summary.pixels:
        faults.append(Fault(FaultKind.NOTHING_LABELLED, "every pixel is void, so nothing is learned from it"))
    if summary.crowd and not summary.things:
        share = 100 * summary.crowd / summary.pixels
        faults.append(
            Fault(
                FaultKind.ONLY_CROWDS,
                f"{share:.1f} % of the pixels are things, none of which has an instance number other than 0, so all of"
                " them count as crowd; instances have to be numbered from 1",
            )
        )
    return faults


def _id_faults(areas: Mapping[int, int], descriptor: DatasetDescriptor) -> Iterable[Fault]:
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
            f"{area} pixels have class {class_id} (label id {example} = {class_id} * {descriptor.label_divisor} +"
            f" {example % descriptor.label_divisor}), which {descriptor.name} does not list",
        )
    for class_id, area in sorted(numbered.items()):
        yield Fault(
            FaultKind.STUFF_INSTANCE,
            f"{area} pixels of {descriptor.by_id[class_id].name!r} (class {class_id}) have an instance number; it is"
            " stuff, which has instance 0 only",
        )


def divisor_fault(ids: Iterable[int], descriptor: DatasetDescriptor) -> Fault | None:
    """Looks for another label divisor by which all panoptic ids of a data set make sense, where its own does not."""
    ids = list(ids)
    if _make_sense(ids, descriptor, descriptor.label_divisor):
        return None
    # A divisor larger than all ids would make them void, each with an instance number; that explains nothing.
    fitting = [
        divisor
        for divisor in _USUAL_DIVISORS
        if _make_sense(ids, descriptor, divisor)
        and not any(i // divisor == descriptor.ignore_label and i % divisor for i in ids)
    ]
    if not fitting:
        return None
    return Fault(
        FaultKind.DIVISOR,
        f"the descriptor says label_divisor {descriptor.label_divisor}, by which some labels make no sense; by"
        f" {' or '.join(map(str, fitting))} all of them do",
    )


def _make_sense(ids: Iterable[int], descriptor: DatasetDescriptor, divisor: int) -> bool:
    for panoptic_id in ids:
        class_id, instance = divmod(panoptic_id, divisor)
        if class_id == descriptor.ignore_label:
            continue
        if class_id not in descriptor.by_id or (instance and not descriptor.by_id[class_id].is_thing):
            return False
    return True
