"""Predictions as labels for tools: the importers of the same tools, and pycocotools, read back the same pixels.

Checked once, outside of the suite, with the 122 segments of `scenes(20)`: label-studio-sdk 2.1.2 decodes all brush
masks to the same pixels (`converter.brush.decode_rle`) and takes all predictions for valid (its `LabelInterface`);
Datumaro 1.13.12, by which CVAT imports, reads all masks of `cvat.xml` and `coco_instances.json` to the same pixels.
"""

import json
import os
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from deeplab2_kmax.cli.predict import predict_files
from deeplab2_kmax.converters.coco_instances import convert_coco_instances
from deeplab2_kmax.converters.cvat import convert_cvat
from deeplab2_kmax.converters.importing.conversion import ImportRules, Shards
from deeplab2_kmax.converters.label_studio import convert_label_studio
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.serving.pre_labels import TOOLS, pre_labels
from deeplab2_kmax.serving.predictor import Prediction, list_segments
from helpers.import_trials import labels_of_records
from helpers.imported import difference_of_maps, names_and_instances
from helpers.shapes_truth import DESCRIPTOR, STUFF, scenes


def prediction_of(scene) -> Prediction:
    """What a model that is always right would find in a scene; it knows no crowds."""
    panoptic_map = scene.label.copy()
    for segment in scene.segments:
        panoptic_map[segment.mask & segment.is_crowd] = DESCRIPTOR.void_id
    scores = np.full(panoptic_map.shape, 0.75, np.float32)
    segments = list_segments(panoptic_map, scores, DESCRIPTOR)
    return Prediction(scene.image, panoptic_map, segments, DESCRIPTOR)


@pytest.fixture(scope="module")
def predictions():
    return {f"{scene.name}.png": prediction_of(scene) for scene in scenes(count=3, size=33, seed=3)}


@pytest.fixture
def folder(tmp_path, predictions):
    """With photos/, and the file of each tool."""
    (tmp_path / "photos").mkdir()
    made = pre_labels(TOOLS, DESCRIPTOR, "runs/a")
    for name, prediction in predictions.items():
        Image.fromarray(prediction.image).save(tmp_path / "photos" / name)
        for each in made:
            each.add(f"/somewhere/else/{name}", prediction)
    for each in made:
        (tmp_path / each.file_name).write_bytes(each.content())
    return tmp_path


def submitted(folder):
    """What Label Studio exports once its predictions are accepted as they are."""
    tasks = json.loads((folder / "label_studio.json").read_text())
    for number, task in enumerate(tasks):
        (prediction,) = task["predictions"]
        task["annotations"] = [{"id": number, "result": prediction["result"], "was_cancelled": False}]
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder / "export.json"


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_written_is_imported_with_the_same_pixels(folder, predictions, tool):
    convert, path, rules = {
        "coco": (convert_coco_instances, folder / "coco_instances.json", ImportRules()),
        "cvat": (convert_cvat, folder / "cvat.xml", ImportRules(stuff_classes=STUFF)),
        "label_studio": (convert_label_studio, submitted(folder), ImportRules()),
    }[tool]
    # Label Studio's export names only those classes that it has regions of.
    dataset = "shapes" if tool == "label_studio" else str(folder / "own.json")
    paths = convert(dataset, str(folder / "photos"), str(path), Shards(str(folder / "records"), num_processes=1), rules)
    got = labels_of_records(paths, dataset)
    assert got.keys() == {name[:-4] for name in predictions}
    for name, prediction in predictions.items():
        assert not difference_of_maps(*got[name[:-4]], *names_and_instances(prediction.panoptic_map, DESCRIPTOR))


def test_pycocotools_reads_the_instances(folder, predictions, capsys):
    coco = COCO(str(folder / "coco_instances.json"))
    assert {c["name"]: c["id"] for c in coco.loadCats(coco.getCatIds())} == {
        c.name: c.source_id for c in DESCRIPTOR.classes
    }
    for image in coco.loadImgs(coco.getImgIds()):
        prediction = predictions[image["file_name"]]
        annotations = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert len(annotations) == len(prediction.segments)
        for segment, annotation in zip(prediction.segments, annotations):
            mask = prediction.panoptic_map == segment.id
            np.testing.assert_array_equal(coco.annToMask(annotation), mask)
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert (annotation["bbox"], annotation["area"], annotation["score"]) == (box, mask.sum(), 0.75)


def test_cvat_gets_the_classes_with_their_colors(folder):
    root = ElementTree.parse(folder / "cvat.xml").getroot()
    labels = root.findall("meta/task/labels/label")
    assert [(e.findtext("name"), e.findtext("color"), e.findtext("type")) for e in labels] == [
        (c.name, "#" + bytes(c.color).hex(), "any") for c in DESCRIPTOR.classes
    ]
    assert [e.get("id") for e in root.findall("image")] == ["0", "1", "2"]


def test_label_studio_gets_scores_and_addresses(predictions):
    (labels,) = pre_labels(["label_studio"], DESCRIPTOR, "runs/a", "s3://bucket/my set/")
    (prediction, *_) = predictions.values()
    labels.add("photos/caf\u00e9 1.png", prediction)
    (task,) = json.loads(labels.content())
    assert task["data"] == {"image": "s3://bucket/my set/caf%C3%A9%201.png"}
    (predicted,) = task["predictions"]
    assert (predicted["model_version"], predicted["score"]) == ("runs/a", 0.75)
    assert {(r["from_name"], r["to_name"], r["score"]) for r in predicted["result"]} == {("tag", "image", 0.75)}


def test_a_picture_without_segments(tmp_path):
    nothing = Prediction(np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.int32), (), DESCRIPTOR)
    coco, cvat, studio = pre_labels(["coco", "cvat", "label_studio"], DESCRIPTOR, "m")
    for each in (coco, cvat, studio):
        each.add("a.png", nothing)
    assert json.loads(coco.content())["annotations"] == []
    assert list(ElementTree.fromstring(cvat.content()).find("image")) == []
    assert json.loads(studio.content())[0]["predictions"] == [{"model_version": "m", "score": 0.0, "result": []}]


def test_unknown_tools_are_named():
    with pytest.raises(UserError, match="expected names of tools .* got 'label-studio'; did you mean 'label_studio'"):
        pre_labels(["label-studio"], DESCRIPTOR, "m")
    with pytest.raises(UserError, match="each once, got 'cvat' twice"):
        pre_labels(["cvat", "cvat"], DESCRIPTOR, "m")


@pytest.fixture
def pictures(tmp_path, predictions):
    """Paths of pictures, and what segments them in no time."""
    for folder in ("in", "in2"):
        (tmp_path / folder).mkdir()
    for name, prediction in predictions.items():
        Image.fromarray(prediction.image).save(tmp_path / "in" / name)
    by_shape = {prediction.image.shape: prediction for prediction in predictions.values()}
    return [str(tmp_path / "in" / name) for name in predictions], lambda image: by_shape[image.shape]


def test_one_file_for_each_tool_is_written(tmp_path, pictures):
    paths, predictor = pictures
    (tmp_path / "in" / "broken.png").write_text("no picture")
    lines, complaints = [], []
    labels = pre_labels(["coco", "cvat"], DESCRIPTOR, "m")
    broken = str(tmp_path / "in" / "broken.png")
    failed = predict_files(predictor, [*paths, broken], tmp_path / "out", lines.append, complaints.append, labels)
    assert failed == 1
    assert lines[-2:] == [
        f"labels of 3 pictures -> {tmp_path / 'out' / 'coco_instances.json'}",
        f"labels of 3 pictures -> {tmp_path / 'out' / 'cvat.xml'}",
    ]
    names = [image["file_name"] for image in json.loads((tmp_path / "out/coco_instances.json").read_text())["images"]]
    assert names == [os.path.basename(path) for path in paths]


def test_nothing_is_written_where_all_pictures_fail(tmp_path, pictures):
    broken = tmp_path / "in" / "broken.png"
    broken.write_text("no picture")
    assert predict_files(
        pictures[1], [str(broken)], tmp_path / "out", print, print, pre_labels(["cvat"], DESCRIPTOR, "m")
    )
    assert not (tmp_path / "out" / "cvat.xml").exists()


def test_pictures_of_one_name_are_refused(tmp_path, pictures):
    paths, predictor = pictures
    twin = tmp_path / "in2" / os.path.basename(paths[0])
    twin.write_bytes((tmp_path / "in" / twin.name).read_bytes())
    labels = pre_labels(["cvat"], DESCRIPTOR, "m")
    with pytest.raises(
        UserError, match="expected pictures whose names .without endings. differ, as labelling tools find them by name"
    ):
        predict_files(predictor, [paths[0], str(twin)], tmp_path / "out", print, print, labels)
