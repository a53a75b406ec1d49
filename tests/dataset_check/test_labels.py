"""The content and the faults of a label, by exact numbers."""

import numpy as np
import pytest

from deeplab2_kmax.dataset_check import FaultKind, Limits
from deeplab2_kmax.dataset_check.faults import NO_LIMITS
from deeplab2_kmax.dataset_check.labels import divisor_fault, label_faults, segment_areas, summarize
from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass

# Classes 1 and 2 are things, 4 is stuff, 3 is no class, 0 is void; at most 9 instances.
CLASSES = tuple(SegmentClass(i, name, i < 3, (i, 0, 0), i) for i, name in [(1, "car"), (2, "man"), (4, "road")])
OWN = DatasetDescriptor("own", CLASSES, num_classes=5, ignore_label=0, label_divisor=10)


def _faults(label, limits=NO_LIMITS):
    return label_faults(segment_areas(np.array(label, np.int32)), OWN, limits)


def test_a_label_is_summed_up():
    label = np.array([[11, 11, 12, 21], [10, 10, 40, 40], [0, 40, 17, 3]], np.int32)
    summary = summarize(segment_areas(label), OWN)
    assert summary.pixels == 12
    assert summary.void == 2  # 0, and 3: void with an instance id
    assert summary.crowd == 2
    assert summary.things == 4
    assert summary.segments == 5
    assert summary.largest_instance == 7
    assert summary.classes == {1: (4, 6), 2: (1, 1), 4: (1, 3)}


def test_a_good_label_has_no_faults():
    assert _faults([[11, 10, 40], [0, 21, 12]], Limits(max_thing_id=3, num_mask_slots=4)) == []


@pytest.mark.parametrize(
    "label, limits, kind, text",
    [
        ([[11, 35, 35, 30]], Limits(), FaultKind.UNKNOWN_CLASS, "3 pixels of class 3 (panoptic id 30 = 3 * 10 + 0)"),
        ([[11, -5]], Limits(), FaultKind.UNKNOWN_CLASS, "1 pixel of class -1 (panoptic id -5 = -1 * 10 + 5)"),
        ([[11, 41, 42]], Limits(), FaultKind.STUFF_INSTANCE, "2 pixels of 'road' (class 4) with an instance id"),
        ([[11, 12, 21]], Limits(2), FaultKind.TOO_MANY_THINGS, "3 things, but max_thing_id of the config is 2"),
        (
            [[11, 12, 40]],
            Limits(None, 2),
            FaultKind.MORE_SEGMENTS_THAN_SLOTS,
            "3 segments (2 things and 1 stuff class), but the model has 2 mask slots",
        ),
        ([[0, 0]], Limits(), FaultKind.NOTHING_LABELLED, "every pixel is void"),
        (
            [[10, 10, 20, 40]],
            Limits(),
            FaultKind.ONLY_CROWDS,
            "75.0 % of the pixels are things, all with instance id 0",
        ),
    ],
)
def test_each_fault_is_named(label, limits, kind, text):
    (fault,) = _faults(label, limits)
    assert fault.kind is kind
    assert text in fault.text


def test_another_divisor_is_found_where_it_explains_all_labels():
    fault = divisor_fault([1001, 2017, 4000, 0], OWN)
    assert fault.text.endswith("label_divisor 10, which some labels do not fit; all of them fit 1000")
    assert divisor_fault([11, 40, 0], OWN) is None
    assert divisor_fault([11, 7777777], OWN) is None
