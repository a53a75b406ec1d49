"""PQ by size, boundary metrics and calibration: by hand, equal to the authors' code, from several workers."""

import json

import numpy as np
import pytest

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.boundaries import boundary_width, near_boundaries
from deeplab2_kmax.evaluation.boundary_quality import BoundaryQuality
from deeplab2_kmax.evaluation.calibration import Calibration
from deeplab2_kmax.evaluation.compared_maps import ComparedMaps
from deeplab2_kmax.evaluation.metric_set import MetricSet, MetricSettings
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality
from deeplab2_kmax.evaluation.size_quality import SizeQuality
from deeplab2_kmax.protos import evaluator_pb2
from helpers.generated_maps import DATASET, DIVISOR, VOID, generated_pairs

PERSON, CAR, ROAD = 11 * DIVISOR, 13 * DIVISOR, 0
ALL = MetricSettings(detailed_ap=True, cityscapes_ap=True, boundary_ratio=0.02, calibration=True)


@pytest.fixture(scope="module")
def pairs():
    return [ComparedMaps(*pair[1:], name=pair.name) for pair in generated_pairs(60)]


def result_of(metric, images):
    for image in images:
        metric.update(image)
    return metric.result()


@pytest.mark.parametrize("ratio", [0.02, 0.005])
def test_boundary_quality_equals_the_authors_code(pairs, golden, ratio):
    expected = json.loads((golden / "boundary_quality.json").read_text())[str(ratio)]
    result = result_of(BoundaryQuality(DATASET, ratio), pairs)
    for name in ("All", "Things", "Stuff"):
        ours = getattr(result.quality, name.lower())
        assert (*ours[:3], ours.classes) == pytest.approx([*expected["pq"][name].values()], abs=1e-9)
    per_class = result.as_dict()["panoptic_quality"]["per_class"]
    for name, values in expected["pq"]["per_class"].items():
        assert [per_class[name][key] for key in ("pq", "sq", "rq")] == pytest.approx([*values.values()], abs=1e-9)
    assert result.as_dict()["iou"]["per_class"] == pytest.approx(expected["iou"], abs=1e-9)
    assert 0 < result.quality.all.pq < 0.5


@pytest.mark.parametrize("width", [1, 2, 5, 40])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 2), (23, 31)])
def test_boundaries_are_what_erosion_leaves(shape, width):
    from scipy import ndimage

    random = np.random.RandomState(sum(shape) + width)
    labels = np.kron(random.randint(0, 3, (8, 8)), np.ones((5, 5), int))[: shape[0], : shape[1]]
    expected = np.zeros(shape, bool)
    for label in np.unique(labels):
        mask = labels == label
        expected |= mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), width)
    np.testing.assert_array_equal(near_boundaries(labels, width), expected)


def test_the_width_of_boundaries():
    assert [boundary_width(shape, 0.02) for shape in ((480, 640), (1, 1), (30, 40))] == [16, 1, 1]


def test_boundary_iou_is_that_of_semantic_maps():
    """Which name a class even where the panoptic map is void."""
    truth = np.full((40, 40), ROAD)
    truth[10:30, 10:30] = PERSON + 1
    scores = np.ones(truth.shape)
    classes = truth // DIVISOR
    maps = ComparedMaps(truth, np.full_like(truth, VOID), scores, scores, "", classes, classes)
    result = result_of(BoundaryQuality(DATASET), [maps])
    assert result.mean_iou == 1.0 and result.quality.all.pq == 0.0
    # By the panoptic map alone nothing is found.
    assert result_of(BoundaryQuality(DATASET), [ComparedMaps(truth, maps.prediction)]).mean_iou == 0.0


def test_sizes_count_where_the_true_segment_belongs():
    truth = np.full((100, 220), ROAD)
    truth[:32, :32] = PERSON + 1  # As large as small ones are at most.
    truth[40:80, :40] = PERSON + 2
    prediction = truth.copy()
    prediction[:34, :34] = PERSON + 1  # Of medium size, and still a match.
    prediction[40:80, :40] = ROAD
    prediction[:60, 100:110] = CAR + 1
    result = result_of(SizeQuality(DATASET), [ComparedMaps(truth, prediction)])
    counts = {
        size: {name: (each["tp"], each["fp"], each["fn"]) for name, each in quality.as_dict()["per_class"].items()}
        for size, quality in result.of_sizes.items()
    }
    assert counts == {
        "small": {"person": (1, 0, 0), "car": (0, 1, 0)},
        "medium": {"person": (0, 0, 1)},
        "large": {"road": (1, 0, 0)},
    }
    assert result.as_scalars()["evaluation/pq_small/PQ"] == pytest.approx(32**2 / 34**2 / 2)


def test_sizes_add_up_to_panoptic_quality(pairs):
    quality = PanopticQuality(DATASET)
    for pair in pairs:
        quality.update(pair.truth, pair.prediction)
    sizes = result_of(SizeQuality(DATASET), pairs).of_sizes
    for name in ("iou", "tp", "fp", "fn"):
        total = sum(getattr(each, name) for each in sizes.values())
        np.testing.assert_allclose(total, getattr(quality.result(), name), atol=1e-9)
    assert all(each.tp.sum() > 0 for each in sizes.values())


def test_calibration_by_hand():
    # Six pixels: right, wrong, right, void in truth, void in prediction, right.
    truth = np.array([[ROAD, ROAD, PERSON + 1, VOID, ROAD, CAR + 1]])
    prediction = np.array([[ROAD, CAR + 5, PERSON + 9, ROAD, VOID, CAR + 1]])
    masks, classes = np.array([[1.0, 0.5, 0.9, 0.9, 0.9, 1.0]]), np.array([[1.0, 0.9, 1.0, 1.0, 1.0, 0.25]])
    result = result_of(Calibration(DATASET), [ComparedMaps(truth, prediction, masks, classes)])
    pixels = result.pixels
    assert pixels.count.sum() == 4 and pixels.accuracy == 0.75
    assert pixels.mean_confidence == pytest.approx((1.0 + 0.45 + 0.9 + 0.25) / 4)
    assert pixels.error == pytest.approx((0.0 + 0.45 + 0.1 + 0.75) / 4)
    # Of three pixels of road, one is found, which is a third; half of the prediction of road lies in void.
    segments = result.segments
    assert (segments.count.sum(), segments.right.sum()) == (4, 2)
    bins = result.as_dict()["pixels"]["bins"]
    assert (
        len(bins) == 15
        and bins[-1]["count"] == 1
        and bins[0]
        == {
            "from": 0.0,
            "to": 1 / 15,
            "count": 0,
            "confidence": None,
            "accuracy": None,
        }
    )
    with pytest.raises(DataError, match="expected maps of instance scores"):
        Calibration(DATASET).update(ComparedMaps(truth, prediction))


def test_confidences_that_are_right_as_often_as_they_say_have_no_error():
    random = np.random.RandomState(0)
    confidence = random.uniform(0, 1, (300, 300))
    truth = np.full(confidence.shape, ROAD)
    prediction = np.where(random.uniform(0, 1, confidence.shape) < confidence, ROAD, 1 * DIVISOR)
    ones = np.ones(confidence.shape)
    assert result_of(Calibration(DATASET), [ComparedMaps(truth, prediction, confidence, ones)]).pixels.error < 0.01
    sure = result_of(Calibration(DATASET), [ComparedMaps(truth, prediction, ones, ones)]).pixels
    assert sure.error == pytest.approx(0.5, abs=0.01)


def test_all_metrics_are_the_same_from_several_workers_and_have_the_same_names_without_images(pairs):
    together, merged = MetricSet(DATASET, ALL), MetricSet(DATASET, ALL)
    empty = together.results()
    for share in (pairs[40:], [], pairs[:40]):
        part = MetricSet(DATASET, ALL)
        for pair in share:
            part.update(pair)
        merged.merge(part.to_bytes())
    for pair in pairs:
        together.update(pair)
    expected, found = together.results(), merged.results()
    assert list(expected) == ["panoptic_quality_by_size", "instance_ap", "cityscapes_ap", "boundary", "calibration"]
    for name, result in expected.items():
        assert result.as_scalars().keys() == empty[name].as_scalars().keys()
        assert found[name].as_scalars() == pytest.approx(result.as_scalars(), abs=1e-12)
        assert json.loads(json.dumps(found[name].as_dict())).keys() == result.as_dict().keys()
        assert all(len(row) <= 5 for row in result.as_block().rows)


def test_what_a_config_asks_for():
    assert MetricSettings.from_options(evaluator_pb2.EvaluatorOptions()) == MetricSettings()
    options = evaluator_pb2.EvaluatorOptions(
        detailed_ap_metrics=True, cityscapes_ap=True, boundary_ratio=0.02, calibration=True
    )
    assert MetricSettings.from_options(options) == ALL


def test_sums_do_not_grow_with_the_images(pairs):
    for metric in (SizeQuality(DATASET), BoundaryQuality(DATASET), Calibration(DATASET)):
        before = len(metric.to_bytes())
        result_of(metric, pairs[:5])
        assert len(metric.to_bytes()) == before


def test_no_tensorflow_is_needed():
    import subprocess
    import sys

    code = "import sys, deeplab2_kmax.evaluation.metric_set; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
