"""Panoptic quality of raw label maps: the official definition, bad labels, merging."""

import json
import pathlib

import numpy as np
import pytest

from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.coco_format import coco_panoptic_quality, read_panoptic_png
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "pq_coco"
DIVISOR, VOID = 256, 0
CAT, DOG, SKY = 1, 2, 3


@pytest.fixture
def quality():
    classes = [
        SegmentClass(i, n, t, (0, 0, i), i) for i, n, t in ((1, "cat", True), (2, "dog", True), (3, "sky", False))
    ]
    return PanopticQuality(DatasetDescriptor("pets", tuple(classes), 4, VOID, DIVISOR))


def image(*rows):
    """A label map of 10 columns. A row is given as one (class, instance) for all of its pixels, or as ten of them."""
    return np.array([[c * DIVISOR + i for c, i in (row if len(row) == 10 else [row] * 10)] for row in rows], np.int32)


def raw_map(png, annotation):
    """A COCO-format map as class id * 256 + instance, crowd regions with instance 0; stuff may be split in parts."""
    labels = np.zeros(png.shape, np.int32)
    for number, segment in enumerate(annotation["segments_info"], 1):
        instance = 0 if segment.get("iscrowd") else number
        labels[png == segment["id"]] = segment["category_id"] * DIVISOR + instance
    return labels


def test_raw_maps_equal_the_official_script():
    official = coco_panoptic_quality(GOLDEN / "gt.json", GOLDEN / "pred.json")
    classes = official.descriptor.classes
    descriptor = DatasetDescriptor("coco", classes, max(c.id for c in classes) + 1, VOID, DIVISOR)
    quality = PanopticQuality(descriptor)
    annotations = [json.loads((GOLDEN / name).read_text())["annotations"] for name in ("gt.json", "pred.json")]
    for truth, prediction in zip(*annotations):
        assert truth["image_id"] == prediction["image_id"]
        maps = [
            raw_map(read_panoptic_png(GOLDEN / folder / a["file_name"]), a)
            for folder, a in (("gt", truth), ("pred", prediction))
        ]
        quality.update(*maps)
    np.testing.assert_allclose(
        quality.state, np.stack([official.iou, official.tp, official.fp, official.fn]), rtol=1e-12
    )
    assert quality.result().all.classes == 20


def test_perfect(quality):
    labels = image((CAT, 1), (CAT, 2), (SKY, 0), (VOID, 0))
    quality.update(labels, labels)
    result = quality.result()
    assert result.all == result.stuff._replace(classes=2) == (1, 1, 1, 2)
    np.testing.assert_array_equal(result.tp, [2, 0, 1])
    assert list(result.occurs) == [True, False, True]


def test_iou_counts_void_neither_for_nor_against(quality):
    # cat: 20 predicted, of them 10 true and 10 void; true area 15.
    truth = image((CAT, 1), (VOID, 0), [(CAT, 1)] * 5 + [(SKY, 0)] * 5)
    quality.update(truth, image((CAT, 7), (CAT, 7), (SKY, 0)))
    result = quality.result()
    assert result.pq[0] == pytest.approx(10 / 15)
    # sky: 10 predicted, 5 true and shared: IoU 1/2 is no match.
    assert (result.tp[2], result.fp[2], result.fn[2]) == (0, 1, 1)


def test_crowd_excuses_predictions_and_is_never_missed(quality):
    truth = image((CAT, 0), (CAT, 0), (SKY, 0))
    quality.update(truth, image((CAT, 1), (DOG, 1), (SKY, 0)))
    result = quality.result()
    assert (result.fp[0], result.fn[0]) == (0, 0)
    assert result.fp[1] == 1  # a crowd excuses its own class only


def test_predictions_in_void_are_excused(quality):
    truth = image((VOID, 0), [(VOID, 0)] * 1 + [(SKY, 0)] * 9)
    quality.update(truth, image((CAT, 1), [(CAT, 1)] * 1 + [(SKY, 0)] * 9))
    assert quality.result().fp[0] == 0


@pytest.mark.parametrize(("excusing", "false_positives"), [(9, 1), (10, 1), (11, 0)])
@pytest.mark.parametrize("excuse", [(VOID, 0), (CAT, 0)], ids=["void", "crowd"])
def test_predictions_are_excused_by_more_than_half_of_their_pixels(quality, excuse, excusing, false_positives):
    # The predicted cat has 20 pixels; exactly half of them in void or crowd is not enough for panopticapi.
    pixels = [excuse] * excusing + [(SKY, 0)] * (20 - excusing)
    quality.update(image(pixels[:10], pixels[10:]), image((CAT, 1), (CAT, 1)))
    assert quality.result().fp[0] == false_positives


def test_merged_workers_equal_one(quality):
    rng = np.random.default_rng(0)
    ids = np.array([0, 257, 258, 513, 768])
    pairs = [(ids[rng.integers(5, size=(8, 9))], ids[rng.integers(5, size=(8, 9))]) for _ in range(4)]
    workers = [PanopticQuality(quality.descriptor) for _ in range(2)]
    for number, (truth, prediction) in enumerate(pairs):
        quality.update(truth, prediction)
        workers[number % 2].update(truth, prediction)
    workers[0].merge(workers[1].state)
    np.testing.assert_allclose(workers[0].state, quality.state)
    batched = PanopticQuality(quality.descriptor)
    batched.update(*(np.stack(maps) for maps in zip(*pairs)))
    np.testing.assert_allclose(batched.state, quality.state)
    assert quality.state[1:].sum() > 0


def test_scalars_and_json(quality):
    quality.update(image((CAT, 1), (SKY, 0)), image((CAT, 1), (DOG, 1)))
    scalars = quality.result().as_scalars()
    assert scalars["evaluation/pq/PQ"] == pytest.approx(1 / 3)
    assert scalars["evaluation/pq/FP"] == pytest.approx(1 / 3)
    assert scalars["evaluation/pq_things/PQ"] == pytest.approx(1 / 2)
    content = json.loads(json.dumps(quality.result().as_dict()))
    assert content["per_class"]["cat"] == {
        "id": 1,
        "is_thing": True,
        "pq": 1,
        "sq": 1,
        "rq": 1,
        "tp": 1,
        "fp": 0,
        "fn": 0,
    }


def test_nothing_seen(quality):
    assert quality.result().all == (0, 0, 0, 0)
    assert quality.result().as_scalars()["evaluation/pq/TP"] == 0


@pytest.mark.parametrize("wrong", [9 * DIVISOR + 3, -1])
@pytest.mark.parametrize("where", ["truth", "prediction"])
def test_unknown_class(quality, where, wrong):
    maps = {"truth": image((CAT, 1)), "prediction": image((CAT, 1))}
    maps[where] = maps[where].copy()
    maps[where][0, 3] = wrong
    with pytest.raises(DataError, match=f"{where}: panoptic id {wrong} "):
        quality.update(**maps)
    assert quality.state.sum() == 0


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((4, 5), int), np.zeros((5, 4), int), r"truth \[4, 5\] and prediction \[5, 4\]"),
        (np.zeros((4, 5), int), np.zeros((4, 5)), "prediction: expected integer"),
        (np.zeros((0, 5), int), np.zeros((0, 5), int), r"truth \[0, 5\]"),
        (np.zeros(4, int), np.zeros(4, int), r"\[height, width\]"),
    ],
)
def test_wrong_maps(quality, truth, prediction, message):
    with pytest.raises(DataError, match=message):
        quality.update(truth, prediction)
