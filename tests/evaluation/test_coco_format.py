"""Panoptic quality of COCO-format files against figures of the official script."""

import json
import pathlib
import re
import shutil
import uuid

import pytest

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.coco_format import coco_panoptic_quality
from deeplab2_kmax.files import write_bytes

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "pq_coco"


def test_equals_the_official_script():
    official = json.loads((GOLDEN / "official.json").read_text())
    result = coco_panoptic_quality(GOLDEN / "gt.json", GOLDEN / "pred.json")
    for group in ("All", "Things", "Stuff"):
        averages = getattr(result, group.lower())
        expected = official[group]
        assert averages == pytest.approx((expected["pq"], expected["sq"], expected["rq"], expected["n"]), abs=1e-9)
    ours = {c.id: (pq, sq, rq) for c, pq, sq, rq in zip(result.descriptor.classes, result.pq, result.sq, result.rq)}
    for class_id, expected in official["per_class"].items():
        assert ours[int(class_id)] == pytest.approx((expected["pq"], expected["sq"], expected["rq"]), abs=1e-9)


@pytest.fixture
def files(tmp_path):
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    return tmp_path


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda c: c["annotations"].pop(0),
            "pred.json: expected a prediction for each image .*, got none for image 1$",
        ),
        (lambda c: c["annotations"][0]["segments_info"].append({"id": 7}), "01.png: segment 7 is in the JSON but not"),
        (lambda c: c["annotations"][0]["segments_info"].pop(0), "segment 304 is in the PNG but not in its JSON"),
        (lambda c: c["annotations"][0]["segments_info"][0].update(category_id=9999), "category 9999, which is unknown"),
        (lambda c: c.pop("annotations"), 'without a list "annotations"'),
        (
            lambda c: [annotation.pop("segments_info") for annotation in c["annotations"]],
            "pred.json: annotation of image 1: expected file_name, .* missing: segments_info",
        ),
        (lambda c: c["annotations"][0].update(file_name="none.png"), "none.png: cannot read the panoptic PNG"),
    ],
)
def test_names_what_is_wrong(files, edit, message):
    change(files / "pred.json", edit)
    with pytest.raises(DataError, match=message):
        coco_panoptic_quality(files / "gt.json", files / "pred.json")


def test_warns_of_categories_with_other_names(files, caplog):
    change(files / "pred.json", lambda c: c.update(categories=[{"id": 5, "name": "spoon"}]))
    with caplog.at_level("WARNING", "absl"):
        result = coco_panoptic_quality(files / "gt.json", files / "pred.json")
    assert result.all == coco_panoptic_quality(GOLDEN / "gt.json", GOLDEN / "pred.json").all
    (message,) = caplog.messages
    assert re.search("pred.json: expected the categories of .*, where 5 is 'airplane'; got 'spoon' for 5", message)


def test_scores_remote_files():
    remote = f"ram://coco/{uuid.uuid4().hex}"
    for path in GOLDEN.rglob("*.*"):
        write_bytes(f"{remote}/{path.relative_to(GOLDEN)}", path.read_bytes())
    result = coco_panoptic_quality(f"{remote}/gt.json", f"{remote}/pred.json")
    assert result.all == coco_panoptic_quality(GOLDEN / "gt.json", GOLDEN / "pred.json").all


def test_names_a_remote_file_that_is_missing():
    path = f"ram://coco/{uuid.uuid4().hex}.json"
    with pytest.raises(DataError, match=f"^{path}: cannot read the annotations"):
        coco_panoptic_quality(path, path)


def test_truncated_png(files):
    path = files / "pred" / "000000000001.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="000000000001.png: expected a whole picture"):
        coco_panoptic_quality(files / "gt.json", files / "pred.json")


@pytest.mark.parametrize("both", [True, False])
def test_a_truth_without_images_is_no_result(files, both):
    for name in ("gt.json", "pred.json")[: 2 if both else 1]:
        change(files / name, lambda c: c.update(annotations=[]))
    with pytest.raises(DataError, match=r"/gt.json: expected annotations of at least one image, got none"):
        coco_panoptic_quality(files / "gt.json", files / "pred.json")
