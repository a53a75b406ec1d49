"""Mean IoU: its definition, void, unknown classes, merging."""

import numpy as np
import pytest

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.mean_iou import MeanIoU


def test_definition():
    metric = MeanIoU(load_dataset("cityscapes_panoptic"))
    truth = np.array([[0, 0, 0, 1, 1, 255, 255]])
    metric.update(truth, np.array([[0, 0, 1, 1, 255, 0, 5]]))
    result = metric.result()
    assert result.iou[0] == pytest.approx(2 / 3)
    assert result.iou[1] == pytest.approx(1 / 3)
    assert result.mean == pytest.approx(1 / 2)
    assert list(np.flatnonzero(result.occurs)) == [0, 1]  # 5 is predicted on void only
    # Three labelled pixels of the one class, two of the other.
    weighted = (3 * 2 / 3 + 2 * 1 / 3) / 5
    assert result.as_scalars() == {"evaluation/iou/IoU": result.mean, "evaluation/iou/fwIoU": pytest.approx(weighted)}
    assert MeanIoU(load_dataset("cityscapes_panoptic")).result().frequency_weighted == 0.0
    assert result.as_dict()["per_class"].keys() == {"road", "sidewalk"}


def test_a_class_that_is_only_predicted_counts_with_an_iou_of_zero():
    metric = MeanIoU(load_dataset("cityscapes_panoptic"))
    metric.update(np.array([[0, 0]]), np.array([[0, 1]]))
    result = metric.result()
    assert list(np.flatnonzero(result.occurs)) == [0, 1]
    assert (result.iou[0], result.iou[1], result.mean) == (0.5, 0.0, 0.25)


def test_a_class_of_one_pixel_can_be_perfect():
    metric = MeanIoU(load_dataset("cityscapes_panoptic"))
    metric.update(np.array([[3]]), np.array([[3]]))
    assert metric.result().mean == 1.0


def test_merge_and_ids_from_one():
    dataset = load_dataset("coco_panoptic")
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 134, (2, 3, 20, 20))
    together, one, other = MeanIoU(dataset), MeanIoU(dataset), MeanIoU(dataset)
    together.update(*maps)
    one.update(maps[0, 0], maps[1, 0])
    other.update(maps[0, 1:], maps[1, 1:])
    one.merge(other)
    np.testing.assert_array_equal(one.state, together.state)
    assert together.state.sum() == maps[0].size
    assert 0 < together.result().mean < 0.1


@pytest.mark.parametrize("wrong", [134, 255, -1])
def test_unknown_class(wrong):
    metric = MeanIoU(load_dataset("coco_panoptic"))
    with pytest.raises(DataError, match=f"prediction: class {wrong} "):
        metric.update(np.array([[1, 2]]), np.array([[1, wrong]]))
    assert metric.state.sum() == 0


def test_shapes_differ():
    with pytest.raises(DataError, match=r"truth \[2\] and prediction \[3\]"):
        MeanIoU(load_dataset("coco_panoptic")).update(np.zeros(2, int), np.zeros(3, int))
