"""AP of instances: equal to DeepLab2, to pycocotools and to Cityscapes' script; by hand; from several workers."""

import json

import numpy as np
import pytest

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.cityscapes_ap import CityscapesAP
from deeplab2_kmax.evaluation.compared_maps import ComparedMaps
from deeplab2_kmax.evaluation.instance_ap import InstanceAP
from helpers.generated_maps import DATASET, DIVISOR, VOID, generated_pairs

# COCO takes precision at 101 values of recall, of which 51 are up to a half.
HALF = round(51 / 101, 6)
PERSON, CAR, ROAD = 11 * DIVISOR, 13 * DIVISOR, 0


@pytest.fixture(scope="module")
def expected(golden):
    return json.loads((golden / "average_precision.json").read_text())


@pytest.fixture(scope="module")
def pairs():
    return [ComparedMaps(*pair[1:], name=pair.name) for pair in generated_pairs(40)]


def result_of(kind, images):
    metric = kind(DATASET)
    for image in images:
        metric.update(image)
    return metric.result()


def test_coco_figures_equal_those_of_pycocotools_and_deeplab2(pairs, expected):
    result = result_of(InstanceAP, pairs)
    figures = list(result.figures.values())
    assert figures == pytest.approx(expected["pycocotools"]["figures"], abs=1e-12)
    # DeepLab2 computes scores and figures in float32.
    assert figures == pytest.approx(expected["deeplab2"], abs=1e-7)
    per_class = {name: each["ap"] for name, each in result.per_class.items()}
    assert per_class == pytest.approx(expected["pycocotools"]["per_class"], abs=1e-12)


def test_figures_of_single_images_equal_deeplab2s(pairs, expected):
    """Among them are images without large objects, and without detections."""
    found = [list(result_of(InstanceAP, [pair]).figures.values()) for pair in pairs]
    np.testing.assert_allclose(found, expected["deeplab2_of_each"], atol=1e-7)
    assert (np.array(found) == -1).any()


def test_cityscapes_figures_equal_its_script(pairs, expected):
    result = result_of(CityscapesAP, pairs)
    expected = expected["cityscapes"]
    assert (result.mean, result.mean_50) == pytest.approx((expected["ap"], expected["ap_50"]), abs=1e-12)
    per_class = {name: each["ap"] for name, each in result.as_dict()["per_class"].items()}
    assert per_class == pytest.approx(expected["per_class"], abs=1e-12)


@pytest.mark.parametrize("kind", [InstanceAP, CityscapesAP])
def test_neither_the_order_of_images_nor_the_number_of_workers_matters(pairs, kind):
    together = result_of(kind, pairs).as_dict()
    merged = kind(DATASET)
    for share in (pairs[30:], [], pairs[:30]):
        part = kind(DATASET)
        for pair in share:
            part.update(pair)
        merged.merge(part.to_bytes())
    assert merged.result().as_dict() == together
    # About 36 and 17 bytes a detection, whatever the size of the maps.
    assert len(merged.to_bytes()) < 25_000


def maps(truth, prediction, scores=1.0):
    """Maps of 100 pixels a number, so that Cityscapes counts each."""
    truth, prediction, scores = (
        np.repeat(np.atleast_2d(values), 100, 0) for values in (truth, prediction, scores * np.ones(len(truth)))
    )
    return ComparedMaps(truth, prediction, scores.astype(np.float32), np.ones(truth.shape, np.float32))


def figures(truth, prediction, scores=1.0):
    image = maps(np.array(truth), np.array(prediction), scores)
    coco, cityscapes = result_of(InstanceAP, [image]), result_of(CityscapesAP, [image])
    return round(coco.figures["ap_50"], 6), round(cityscapes.mean_50, 6)


def test_by_hand():
    assert figures([PERSON + 1, ROAD], [PERSON + 7, ROAD]) == (1.0, 1.0)
    # Stuff counts nowhere, an object that is not predicted in recall.
    assert figures([PERSON + 1, PERSON + 2, ROAD], [PERSON + 1, ROAD, ROAD]) == (HALF, 0.5)
    # A wrong detection that is less sure than the right one costs nothing; one that is more sure halves precision.
    truth, prediction = [PERSON + 1, ROAD], [PERSON + 1, PERSON + 2]
    assert figures(truth, prediction, [0.9, 0.5])[0] == 1.0
    assert figures(truth, prediction, [0.5, 0.9])[0] == 0.5
    # Of another class.
    assert figures([PERSON + 1, ROAD], [CAR + 1, ROAD]) == (0.0, 0.0)


def test_void_excuses_in_cityscapes_only_and_crowds_in_both():
    truth = [PERSON + 1, VOID, PERSON, PERSON]
    prediction = [PERSON + 1, PERSON + 2, PERSON + 3, PERSON + 4]
    scores = [0.5, 0.9, 0.9, 0.9]
    assert figures(truth, prediction, scores) == (0.5, 1.0)


def test_an_iou_at_the_threshold_finds_an_object_in_coco_only():
    assert figures([PERSON + 1, PERSON + 1, ROAD], [PERSON + 1, ROAD, ROAD]) == (1.0, 0.0)


def test_a_detection_that_covers_two_objects_by_exactly_half_finds_one():
    assert figures([PERSON + 1, PERSON + 2], [PERSON + 1, PERSON + 1])[0] == HALF


def test_without_detections_all_figures_are_zero_and_without_objects_they_are_unknown():
    nothing = np.zeros((20, 20), np.int64)
    person, scores = nothing + PERSON + 1, np.ones((20, 20))
    for kind in (InstanceAP, CityscapesAP):
        missed = result_of(kind, [ComparedMaps(person, nothing, scores, scores)])
        assert missed.as_dict()["ap"] == 0.0 and missed.as_dict()["classes"] == 1
        assert {*missed.as_scalars().values()} == {0.0}
        empty = result_of(kind, [])
        assert empty.as_dict()["ap"] == 0.0 and empty.as_dict()["classes"] == 0
    # As DeepLab2 reports it; JSON has null, the table a dash.
    invented = result_of(InstanceAP, [ComparedMaps(nothing, person, scores, scores)])
    assert invented.as_scalars() == {"evaluation/ap/AP_Mask": -1.0}
    assert invented.as_dict()["ap"] is None and invented.as_block().rows[0][1] == "-"


def test_names_of_scalars_are_deeplab2s(pairs):
    metric = InstanceAP(load_dataset("coco_panoptic"), detailed=True)
    names = set(metric.result().as_scalars())
    assert len(names) == 12 and names >= {
        "evaluation/ap/AP_Mask",
        "evaluation/ap/AP_Mask_@IoU=0.5",
        "evaluation/ap/AP_Mask_@IoU=0.75",
        "evaluation/ap/AP_Mask_medium",
        "evaluation/ap/AR_Mask_maxdets=100",
        "evaluation/ap/AR_Mask_large",
    }


def test_maps_without_scores_or_of_other_shapes():
    ids = np.zeros((2, 3), np.int64)
    with pytest.raises(DataError, match="one.png: expected maps of instance scores and semantic scores, got none"):
        InstanceAP(DATASET).update(ComparedMaps(ids, ids, name="one.png"))
    with pytest.raises(DataError, match=r"expected maps of one shape, .*got \[2, 3\], \[3, 2\]"):
        ComparedMaps(ids, ids.T)
