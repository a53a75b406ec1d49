"""`deeplab2-kmax submission` against the official scripts, whose scores make_submission_scores.py has written down."""

import json
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.cli import main as command
from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.evaluation.cityscapes_ap import CityscapesAP
from deeplab2_kmax.evaluation.compared_maps import ComparedMaps
from deeplab2_kmax.evaluation.mean_iou import MeanIoU
from deeplab2_kmax.evaluation.scoring.score import score_files
from deeplab2_kmax.evaluation.submission.cityscapes import write_instances
from deeplab2_kmax.evaluation.submission.coco_panoptic import write_coco_zip
from deeplab2_kmax.evaluation.submission.predicted_maps import PredictionFolder
from helpers import scored_files
from helpers.scored_files import DATASET, DIVISOR, NAMES, SOURCE, VOID

OFFICIAL = json.loads((pathlib.Path(__file__).parents[2] / "golden" / "submission_scores.json").read_text())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submissions")
    return folder, *scored_files.write_submissions(folder)


def require_official(result, official):
    for group in ("All", "Things", "Stuff"):
        expected = official[group]
        averages = getattr(result, group.lower())
        assert averages == pytest.approx((expected["pq"], expected["sq"], expected["rq"], expected["n"]), abs=1e-9)
    ours = {
        c.source_id: (pq, sq, rq) for c, pq, sq, rq in zip(result.descriptor.classes, result.pq, result.sq, result.rq)
    }
    for class_id, expected in official["per_class"].items():
        assert ours[int(class_id)] == pytest.approx((expected["pq"], expected["sq"], expected["rq"]), abs=1e-9)


def test_a_zip_for_coco_has_its_score(written, tmp_path):
    folder = written[0]
    with zipfile.ZipFile(folder / "results.zip") as archive:
        names = archive.namelist()
        archive.extractall(tmp_path)
    assert sorted(names) == sorted(["results.json", *(f"results/{name}.png" for name in NAMES)])
    require_official(
        score_files(str(folder / "gt.json"), str(tmp_path / "results.json")).result(), OFFICIAL["panopticapi"]
    )


def test_a_panoptic_folder_for_cityscapes_has_its_score(written):
    folder = written[0]
    result = score_files(str(folder / "gt.json"), str(folder / "panoptic/cityscapes_panoptic.json")).result()
    require_official(result, OFFICIAL["panoptic"])
    content = json.loads((folder / "panoptic/cityscapes_panoptic.json").read_text())
    assert [annotation["image_id"] for annotation in content["annotations"]] == NAMES


def test_semantic_results_have_their_score(written):
    folder, truths, predictions = written
    training_id = np.full(256, VOID)
    training_id[list(SOURCE.values())] = list(SOURCE)
    metric = MeanIoU(DATASET)
    for name, truth, prediction in zip(NAMES, truths, predictions):
        classes = training_id[np.asarray(Image.open(folder / "semantic" / f"{name}.png"))]
        np.testing.assert_array_equal(classes, prediction // DIVISOR)
        metric.update(truth // DIVISOR, classes)
    result = metric.result()
    official = {name: iou for name, iou in OFFICIAL["semantic"]["per_class"].items() if not np.isnan(iou)}
    assert result.as_dict()["per_class"] == pytest.approx(official)
    assert result.mean == pytest.approx(OFFICIAL["semantic"]["mean"])
    assert len(list((folder / "semantic").iterdir())) == len(NAMES)


def test_instance_results_are_the_things_with_their_confidence(written):
    folder, _, predictions = written
    for name, prediction in zip(NAMES, predictions):
        things = {}
        for line in (folder / "instance" / f"{name}.txt").read_text().splitlines():
            mask, class_id, confidence = line.split(" ")
            values = np.asarray(Image.open(folder / "instance" / mask))
            assert set(np.unique(values).tolist()) == {0, 255}
            (panoptic_id,) = np.unique(prediction[values > 0]).tolist()
            np.testing.assert_array_equal(values > 0, prediction == panoptic_id)
            assert int(class_id) == SOURCE[panoptic_id // DIVISOR]
            things[panoptic_id] = float(confidence)
        expected = [i for i in np.unique(prediction).tolist() if i // DIVISOR in DATASET.thing_class_ids]
        assert things == {i: scored_files.score_of(i) for i in expected} and things


def test_instance_results_have_their_score(written):
    folder, truths, _ = written
    training_id = {source: class_id for class_id, source in SOURCE.items()}
    metric = CityscapesAP(DATASET)
    for name, truth in zip(NAMES, truths):
        panoptic, scores = np.full(truth.shape, VOID * DIVISOR), np.zeros(truth.shape)
        for number, line in enumerate((folder / "instance" / f"{name}.txt").read_text().splitlines(), start=1):
            mask, class_id, confidence = line.split(" ")
            pixels = np.asarray(Image.open(folder / "instance" / mask)) > 0
            panoptic[pixels], scores[pixels] = training_id[int(class_id)] * DIVISOR + number, float(confidence)
        metric.update(ComparedMaps(truth, panoptic, scores, np.ones(truth.shape)))
    result, official = metric.result(), OFFICIAL["instance"]
    assert (result.mean, result.mean_50) == pytest.approx((official["allAp"], official["allAp50%"]))


@pytest.mark.parametrize("raw_format", ["two_channel_png", "three_channel_png", "two_channel_numpy_array"])
@pytest.mark.parametrize("training_ids", [False, True])
def test_raw_maps_make_the_same_submission(written, tmp_path, raw_format, training_ids):
    folder, _, predictions = written
    scored_files.write_raw(tmp_path / "raw", predictions, raw_format, source_ids=not training_ids)
    raw = PredictionFolder(str(tmp_path / "raw"), DATASET.name, raw_format, training_ids)
    write_coco_zip(raw, str(tmp_path / "results.zip"), str(folder / "images.json"))
    with zipfile.ZipFile(tmp_path / "results.zip") as ours, zipfile.ZipFile(folder / "results.zip") as other:
        assert {name: ours.read(name) for name in ours.namelist()} == {
            name: other.read(name) for name in other.namelist()
        }


def test_raw_maps_give_every_thing_confidence_1_and_a_warning(written, tmp_path, caplog):
    scored_files.write_raw(tmp_path / "raw", written[2], "two_channel_png")
    with caplog.at_level("WARNING", "absl"):
        write_instances(PredictionFolder(str(tmp_path / "raw"), DATASET.name), str(tmp_path / "out"))
    assert ["raw maps do not say how sure" in message for message in caplog.messages] == [True]
    lines = (tmp_path / "out" / f"{NAMES[0]}.txt").read_text().splitlines()
    assert {line.split(" ")[2] for line in lines} == {"1.000000"}


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        command.main(["submission", *map(str, arguments)])
    captured = capsys.readouterr()
    return ended.value.code, captured.out + captured.err


@pytest.mark.parametrize("form", ["cityscapes-panoptic", "cityscapes-semantic", "cityscapes-instance", "coco"])
def test_the_command_writes_them(written, tmp_path, capsys, form):
    folder = written[0]
    is_zip = form == "coco"
    output = tmp_path / ("results.zip" if is_zip else "out")
    images = [f"--images={folder / 'images.json'}"] if is_zip else []
    status, text = run(capsys, form, folder / "predict", "-o", output, *images)
    assert status == 0 and f"4 images of cityscapes_panoptic -> {output}" in text
    if is_zip:
        assert output.read_bytes()
        return
    before = {p.relative_to(folder / form.split("-")[1]): p.read_bytes() for p in files_of(folder / form.split("-")[1])}
    assert {p.relative_to(output): p.read_bytes() for p in files_of(output)} == before
    status, text = run(capsys, form, folder / "predict", "-o", output)
    assert "expected a new or empty folder, got one with files" in f"{status}{text}"


def files_of(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_image_ids_are_the_names_where_no_file_says_them(tmp_path):
    (tmp_path / "predict").mkdir()
    for name in ("000000000139", "000000000285"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "predict" / f"{name}_panoptic.png")
        table = {"dataset": "coco_panoptic", "void_id": 0, "segments": []}
        (tmp_path / "predict" / f"{name}_segments.json").write_text(json.dumps(table))
    write_coco_zip(PredictionFolder(str(tmp_path / "predict")), str(tmp_path / "panoptic_val2017_x_results.zip"))
    with zipfile.ZipFile(tmp_path / "panoptic_val2017_x_results.zip") as archive:
        content = json.loads(archive.read("panoptic_val2017_x_results.json"))
    assert [(a["image_id"], a["segments_info"]) for a in content["annotations"]] == [(139, []), (285, [])]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda images: images["images"].pop(), "expected no prediction but of each of its images.*not among them"),
        (
            lambda images: images["images"].append({"id": 9, "file_name": "more.jpg"}),
            r"expected a prediction of each of its images, .* image 'more' is missing \(1 in all\)",
        ),
        (lambda images: images.pop("images"), 'expected JSON with "images"'),
    ],
)
def test_the_images_have_to_be_those_of_the_test_set(written, tmp_path, edit, message):
    images = json.loads((written[0] / "images.json").read_text())
    edit(images)
    (tmp_path / "images.json").write_text(json.dumps(images))
    with pytest.raises(DataError, match=message):
        write_coco_zip(
            PredictionFolder(str(written[0] / "predict")), str(tmp_path / "out.zip"), str(tmp_path / "images.json")
        )
    assert not (tmp_path / "out.zip").exists()


def test_says_what_does_not_fit(written, tmp_path, capsys):
    folder = written[0]
    scored_files.write_raw(tmp_path / "raw", written[2], "two_channel_png")
    with pytest.raises(UserError, match="expected the data set of raw maps"):
        PredictionFolder(str(tmp_path / "raw"))
    with pytest.raises(DataError, match=r"expected classes of shapes, got [\d,]+ pixels of class \d+; see whether"):
        list(PredictionFolder(str(tmp_path / "raw"), "shapes"))
    with pytest.raises(DataError, match="a name that is the id of the image.*--images"):
        write_coco_zip(PredictionFolder(str(folder / "predict")), str(tmp_path / "out.zip"))
    for arguments, message in (
        (["coco", folder / "predict", "-o", tmp_path / "out"], "--output: expected a ZIP file"),
        (["cityscapes-semantic", folder / "predict", "-o", tmp_path / "o", "--images=x"], "--images: expected it with"),
        (["coco", folder / "gtFine/none", "-o", tmp_path / "out.zip", "--dataset=shapes"], "cannot read the folder"),
        (
            ["coco", folder / "instance", "-o", tmp_path / "out.zip", "--dataset=shapes"],
            "a name that is the id of the image",
        ),
    ):
        status, text = run(capsys, *arguments)
        assert message in f"{status}{text}", (arguments, status, text)


@pytest.fixture
def own_copy(written, tmp_path):
    shutil.copytree(written[0] / "predict", tmp_path / "predict")
    return tmp_path


def edited(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("form", ["cityscapes-panoptic", "cityscapes-semantic", "cityscapes-instance"])
def test_other_classes_are_no_results_for_cityscapes(own_copy, capsys, form):
    for path in (own_copy / "predict").glob("*.json"):
        edited(path, lambda table: table.update(dataset="coco_panoptic"))
    status, text = run(capsys, form, own_copy / "predict", "-o", own_copy / "out")
    assert "coco_panoptic: expected the classes of Cityscapes, such as 24 person, got 1 'person'" in f"{status}{text}"
    assert not (own_copy / "out").exists()


@pytest.mark.parametrize("form", ["cityscapes-panoptic", "cityscapes-semantic", "cityscapes-instance"])
def test_other_names_are_no_results_for_cityscapes(own_copy, capsys, form):
    for ending in ("_panoptic.png", "_segments.json"):
        (own_copy / "predict" / f"{NAMES[0]}{ending}").rename(own_copy / "predict" / f"holiday{ending}")
    status, text = run(capsys, form, own_copy / "predict", "-o", own_copy / "out")
    assert "image 'holiday': expected a name <city>_<sequence>_<frame>" in f"{status}{text}"
    assert not (own_copy / "out").exists()


def test_the_data_set_of_a_prediction_is_not_taken_for_another(own_copy):
    path = own_copy / "predict" / f"{NAMES[0]}_segments.json"

    def name_classes(table):
        for segment in table["segments"]:
            segment["class_name"] = DATASET.classes[segment["class_id"]].name

    with pytest.raises(DataError, match="with the classes of coco_panoptic, got one of cityscapes_panoptic"):
        list(PredictionFolder(str(own_copy / "predict"), "coco_panoptic"))
    edited(path, name_classes)
    list(PredictionFolder(str(own_copy / "predict"), "cityscapes_panoptic"))
    with pytest.raises(DataError, match=r"classes of coco_panoptic, where class \d+ is '.*'; got '.*' of cityscapes"):
        list(PredictionFolder(str(own_copy / "predict"), "coco_panoptic"))
    # Another name for the same classes is as good.
    edited(path, lambda table: table.update(dataset="streets"))
    assert next(iter(PredictionFolder(str(own_copy / "predict"), "cityscapes_panoptic"))).segment_ids()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda content: content.update(categories=[{"id": 24, "name": "cat"}]),
            "expected the classes of the test set, where 24 is 'cat'; got 'person' of cityscapes_panoptic",
        ),
        (
            lambda content: content.update(categories=[{"id": 1, "name": "person"}]),
            "where 1 is 'person'; got no such class of cityscapes_panoptic",
        ),
        (lambda content: content["images"][1].update(id=NAMES[0]), "expected an id for each image, got id 'frankfurt_"),
        (
            lambda content: content["images"][1].update(height=97, width=160),
            "image 'frankfurt_000001_000019': expected a prediction of height x width 97 x 160, as .*, got 96 x 160",
        ),
    ],
)
def test_the_images_of_the_test_set_are_those_predicted(written, tmp_path, edit, message):
    content = json.loads((written[0] / "images.json").read_text())
    edit(content)
    (tmp_path / "images.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        write_coco_zip(
            PredictionFolder(str(written[0] / "predict")), str(tmp_path / "out.zip"), str(tmp_path / "images.json")
        )
    assert not (tmp_path / "out.zip").exists()


def test_replaces_no_file_but_a_zip(written, tmp_path, capsys):
    output = tmp_path / "out.zip"
    arguments = ["coco", written[0] / "predict", "-o", output, f"--images={written[0] / 'images.json'}"]
    output.write_text("a thesis")
    status, text = run(capsys, *arguments)
    assert "expected a new file or a ZIP file to replace, got another" in f"{status}{text}"
    assert output.read_text() == "a thesis"
    output.unlink()
    for _ in range(2):
        assert run(capsys, *arguments)[0] == 0
