"""Tables that fit a terminal, and JSON files that are whole or absent."""

import json

import numpy as np
import pytest

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.evaluation import report
from deeplab2_kmax.evaluation.mean_iou import MeanIoU
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality
from deeplab2_kmax.files import write_json


@pytest.fixture(scope="module")
def results():
    dataset = load_dataset("coco_panoptic")
    quality, mean_iou = PanopticQuality(dataset), MeanIoU(dataset)
    classes = np.repeat(np.arange(1, 134), 20).reshape(1, -1)
    truth = classes * 256 + np.isin(classes, dataset.thing_class_ids)
    quality.update(truth, np.where(np.arange(truth.size) % 20 < 14, truth, 0))
    mean_iou.update(classes, classes)
    return quality.result(), mean_iou.result()


def test_table(results):
    lines = report.quality_table(*results, per_class=True).split("\n")
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["All"] == ["All", "70.00", "70.00", "100.00", "133"]
    assert rows["Things"][-1] == "80" and rows["Stuff"][-1] == "53"
    assert rows["mean"] == ["mean", "IoU", "100.00", "133"]
    assert rows["person"] == ["person", "70.00", "70.00", "100.00", "1", "0", "0", "100.00"]
    assert len(report.quality_table(*results).split("\n")) == 8


def test_the_foot_says_why_the_numbers_of_classes_differ():
    dataset = load_dataset("shapes")
    quality, mean_iou = PanopticQuality(dataset), MeanIoU(dataset)
    sky = np.full((4, 4), 5)
    # Stray pixels of three more classes, where the panoptic map is void.
    stray = np.array([[1, 2, 3, 5]] * 4)
    quality.update(sky * 256, np.where(stray == 5, sky * 256, 0))
    mean_iou.update(sky, stray)
    table = report.quality_table(quality.result(), mean_iou.result())
    foot = " ".join(table.split("\n\n")[-1].split())
    assert foot.startswith("PQ is the mean of 1 class: those with a segment")
    assert "mean IoU is the mean of 4 classes: those with a pixel" in foot
    assert max(map(len, table.split("\n"))) <= 80


def test_json(results, tmp_path):
    path = tmp_path / "new" / "results.json"
    write_json(path, report.quality_json(*results, step=20))
    content = json.loads(path.read_text())
    assert (content["step"], content["dataset"]) == (20, "coco_panoptic")
    assert content["panoptic_quality"]["all"]["pq"] == pytest.approx(0.7)
    assert content["mean_iou"]["mean"] == 1


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"pq": 1})
    with pytest.raises(TypeError):
        write_json(path, {"pq": 2, "bad": object()})
    assert json.loads(path.read_text()) == {"pq": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
