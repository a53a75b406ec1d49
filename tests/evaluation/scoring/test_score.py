"""`deeplab2-kmax score`: one truth and one prediction in all formats have the same figures, without TensorFlow."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.cli.predict import predict_files
from deeplab2_kmax.cli.score import score as run_score
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.evaluation.prediction_files import PredictionFiles
from deeplab2_kmax.evaluation.scoring.score import Options, score_files
from deeplab2_kmax.evaluation.submission.coco_panoptic import write_coco_zip
from deeplab2_kmax.evaluation.submission.predicted_maps import PredictionFolder
from deeplab2_kmax.files import write_bytes
from deeplab2_kmax.names import image_key
from helpers import scored_files

ROOT = pathlib.Path(__file__).resolve().parents[3]
TRUTHS = ["records", "gtFine", "coco", "cityscapes", "two_channel_png"]
PREDICTIONS = ["coco", "predict", "two_channel_png", "three_channel_png", "two_channel_numpy_array"]
PREDICTIONS += ["training ids", "raw_panoptic"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    return folder, *scored_files.write_all(folder)


def score(folder, truth, prediction, **options):
    figures = score_files(str(folder / truth), str(folder / prediction), Options(**options), processes=1)
    return dict(zip(figures.names, figures.states())), figures


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_all_formats_have_the_same_figures(written, truth, prediction):
    folder, of_truth, of_prediction = written
    (truth_path, of_this_truth), (prediction_path, of_this_prediction) = of_truth[truth], of_prediction[prediction]
    if truth == "two_channel_png" and of_this_prediction.get("raw_format") == "three_channel_png":
        truth_path = "truth_three_channel_png"  # There is one flag for both sides.
    if truth == "two_channel_png" and "training_ids" in of_this_prediction:
        truth_path += "_train"
    states, figures = score(folder, truth_path, prediction_path, **{**of_this_truth, **of_this_prediction})
    expected = scored_files.expected()
    assert expected[:, 0].sum() > 3 and expected[:, 2].sum() > 3 and expected[:, 3].sum() > 3
    got = np.array([states[image_key(name)] for name in scored_files.NAMES])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    assert [c.name for c in figures.classes] == [c.name for c in scored_files.DATASET.classes]


# Fails if TensorFlow is imported, also in the processes that are started; prints the results of several formats.
WITHOUT_TENSORFLOW = """
import sys

class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("tensorflow", "orbit"):
            raise ImportError(f"{name} is imported")

sys.meta_path.insert(0, Refuse())
from deeplab2_kmax.cli.main import main

main(sys.argv[1:])
"""


@pytest.mark.parametrize("truth", ["records", "gtFine", "coco"])
def test_the_command_needs_no_tensorflow_and_no_model(written, truth, tmp_path):
    folder, of_truth, _ = written
    path, options = of_truth[truth]
    # JSON on both sides is what hotcoco counts.
    prediction = "pred.json" if truth == "coco" else "prediction_two_channel_png"
    results = []
    for processes in (1, 2):
        command = [sys.executable, "-W", "error", "-c", WITHOUT_TENSORFLOW, "score", f"--truth={folder / path}"]
        command += [f"--prediction={folder / prediction}", f"--processes={processes}"]
        command += [f"--json={tmp_path / f'{processes}.json'}", *(f"--{name}={v}" for name, v in options.items())]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert "4 images of" in done.stdout and "person" in done.stdout
        results.append(json.loads((tmp_path / f"{processes}.json").read_text()))
    assert results[0] == results[1]
    assert results[0]["images"] == 4
    figures = ImageFigures.load(tmp_path / "1-images.npz")
    assert figures.result().as_dict() == results[0]["panoptic_quality"]
    assert {"all", "things", "stuff", "per_class"} == results[0]["panoptic_quality"].keys()


def test_the_program_does_what_the_command_does(written, tmp_path):
    folder = written[0]
    command = [sys.executable, "evaluation/score.py", f"--truth={folder}/gt.json", f"--prediction={folder}/pred.json"]
    command += [f"--truth_folder={folder}/gt", "--format=coco", f"--json={tmp_path}/metrics-1.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "metrics-1.json").read_text())["panoptic_quality"]
    assert content == ImageFigures.load(tmp_path / "images-1.npz").result().as_dict()
    done = subprocess.run([*command[:2], "--truth=none.json", "--prediction=x.json"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: none.json: cannot read"), done.stderr


@pytest.mark.parametrize(
    ("truth", "prediction", "options", "error", "message"),
    [
        ("truth_two_channel_png", "pred.json", {}, UserError, "expected the data set of .*--dataset"),
        ("val-*.tfrecord", "pred.json", {}, UserError, "expected the data set of"),
        ("gt.json", "prediction_two_channel_png_train", {"training_ids": True}, UserError, "name it by --dataset"),
        ("gt.json", "prediction_two_channel_png_train", {}, DataError, "a class of the truth, .*training_ids"),
        ("gt.json", "prediction_three_channel_png", {}, DataError, "expected 0 in blue.*--raw_format=three"),
        ("gt.json", "none", {}, DataError, "none: cannot read the folder"),
        ("gt.json", "predict", {"prediction_folder": "x"}, UserError, "--prediction_folder: expected"),
        ("gtFine", "predict", {"truth_folder": "x"}, UserError, "--truth_folder: expected"),
        ("gtFine", "predict", {"format": "coco"}, UserError, "expected COCO's panoptic annotations, a .json"),
        ("no-*.tfrecord", "pred.json", {"dataset": "cityscapes_panoptic"}, DataError, "no TFRecord file matches"),
        ("gt", "pred.json", {"format": "cityscapes"}, DataError, "expected files that end in _gtFine_instanceIds.png"),
        (".", "pred.json", {}, UserError, r"expected a pattern of TFRecord files, .* such as '.*val-\*.tfrecord'"),
        ("gt.JSON", "pred.json", {}, UserError, "--truth: expected a name that ends in .json, in small letters"),
        ("gt.json", "pred.json.gz", {}, UserError, "--prediction: expected an unpacked JSON, got .*pred.json.gz"),
    ],
)  # fmt: skip
def test_says_what_does_not_fit(written, truth, prediction, options, error, message):
    with pytest.raises(error, match=message):
        score(written[0], truth, prediction, **options)


@pytest.fixture
def own_copy(written, tmp_path):
    shutil.copytree(written[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def break_segments(folder):
    path = folder / "predict" / f"{scored_files.NAMES[1]}_segments.json"
    content = json.loads(path.read_text())
    content["segments"].pop()
    path.write_text(json.dumps(content))


def with_score(folder, score):
    path = folder / f"{FIRST}_segments.json"
    content = json.loads(path.read_text())
    content["segments"][0]["score"] = score
    path.write_text(json.dumps(content))


def smaller(path):
    image = Image.open(path)
    image.crop((0, 0, 40, 20)).save(path)


FIRST = f"predict/{scored_files.NAMES[0]}"
RAW_PNG = f"prediction_two_channel_png/raw_panoptic/{scored_files.NAMES[2]}_leftImg8bit.png"
RAW_ARRAY = f"prediction_two_channel_numpy_array/raw_panoptic/{scored_files.NAMES[2]}_leftImg8bit.npy"
DAMAGES = {
    "a segment is missing": (break_segments, r"000001_000019_panoptic.png: expected the segments of .*got \d+ pixel"),
    "no segments": (lambda f: (f / f"{FIRST}_segments.json").unlink(), "cannot read the segments of"),
    "other JSON": (lambda f: (f / f"{FIRST}_segments.json").write_text("[]"), "expected the segments of a picture as"),
    "a score of NaN": (lambda f: with_score(f, float("nan")), r"score of segment \d+ within 0 .. 1, got nan"),
    "a score of 7": (lambda f: with_score(f, 7), r"score of segment \d+ within 0 .. 1, got 7.0"),
    "no map": (lambda f: (f / f"{FIRST}_panoptic.png").unlink(), "expected a label map of image .*, got none"),
    "another size": (lambda f: smaller(f / RAW_PNG), r"leftImg8bit.png: expected the size of .*24, 40\]; got \[20, 40"),
    "other numbers": (lambda f: np.save(f / RAW_ARRAY, np.zeros((24, 40))), "expected whole numbers .*, got float64"),
    "no numbers": (lambda f: (f / RAW_ARRAY).write_bytes(b"\x93NUMPY"), "expected an .npy of numbers"),
    "no PNG": (lambda f: (f / RAW_PNG).write_bytes(b""), "leftImg8bit.png: expected a picture .*, got an empty file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_names_the_broken_prediction(own_copy, damage):
    spoil, message = DAMAGES[damage]
    spoil(own_copy)
    with pytest.raises(DataError, match=message):
        for prediction in ("predict", "prediction_two_channel_png", "prediction_two_channel_numpy_array"):
            score(own_copy, "gt.json", prediction)


def test_names_two_maps_of_one_image(own_copy):
    for folder in "ab":
        shutil.copytree(own_copy / "prediction_two_channel_png/raw_panoptic", own_copy / "twice" / folder)
    with pytest.raises(DataError, match="image 'frankfurt_000000_000019' of .*, got a/frankfurt.* and b/frankfurt"):
        score(own_copy, "gt.json", "twice")


def test_names_a_damaged_record(own_copy):
    shard = own_copy / "val-00001-of-00002.tfrecord"
    content = bytearray(shard.read_bytes())
    content[-20] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="val-00001-of-00002.tfrecord, record 1: expected whole data, but its checksum"):
        score(own_copy, "val-*.tfrecord", "pred.json", dataset="cityscapes_panoptic")
    content[3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"record 0: expected a record, got [\d,]+ damaged bytes"):
        score(own_copy, "val-*.tfrecord", "pred.json", dataset="cityscapes_panoptic")


def test_scores_remote_files(written):
    folder, remote = written[0], "ram://score/files"
    for path in [*folder.glob("*.json"), *folder.glob("*.tfrecord"), *folder.glob("gt/*"), *folder.glob("pred/*")]:
        write_bytes(f"{remote}/{path.relative_to(folder)}", path.read_bytes())
    expected = scored_files.expected().sum(0)
    for truth, dataset in (("gt.json", None), ("val-*.tfrecord", "cityscapes_panoptic")):
        figures = score_files(f"{remote}/{truth}", f"{remote}/pred.json", Options(dataset=dataset), processes=1)
        np.testing.assert_allclose(figures.state(), expected, atol=1e-12)


def test_progress_is_told(written):
    told = []
    folder = written[0]
    arguments = (str(folder / "gt.json"), str(folder / "predict"), Options(), 1)
    score_files(*arguments, lambda images: told.append(("start", images)), lambda images: told.append(images))
    assert told[0] == ("start", 4) and sum(told[1:]) == 4


def test_what_a_model_predicts_has_the_figures_of_its_maps(predictor, picture, tmp_path):
    """From `predict` to a score and to a submission, with a real model."""
    dataset = load_dataset("shapes")
    pictures = [picture, picture[::-1].copy(), np.ascontiguousarray(picture[:, ::-1])]
    metric, truths = PanopticQuality(dataset), tmp_path / "truth"
    raw = PredictionFiles(str(truths), dataset, raw_format="two_channel_numpy_array")
    raw.begin()
    (tmp_path / "in").mkdir()
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number}.png")
        predicted = predictor(pixels).panoptic_map
        # What the model sees elsewhere, where it sees something: some segments match, others do not.
        truth = np.where(np.arange(len(predicted))[:, np.newaxis] < 20, np.roll(predicted, 9, 1), predicted)
        metric.update(truth, predicted)
        raw.write(f"{number}.png", truth, None, None)
    out = tmp_path / "out"
    paths = [str(path) for path in sorted((tmp_path / "in").iterdir())]
    assert predict_files(predictor, paths, out, lambda text: None, pytest.fail) == 0
    figures = score_files(str(truths), str(out), Options(dataset="shapes"), processes=1)
    np.testing.assert_allclose(figures.state(), metric.state, atol=1e-12)
    assert metric.state[1].sum() > 0 and metric.state[3].sum() > 0
    write_coco_zip(PredictionFolder(str(out)), str(tmp_path / "all.zip"))
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    options = Options(dataset="shapes")
    again = score_files(str(truths), str(tmp_path / "unpacked/all.json"), options, processes=1)
    np.testing.assert_array_equal(again.states(), figures.states())


@pytest.mark.parametrize("prediction", ["predict", "prediction_two_channel_png"])
def test_names_two_maps_of_one_image_in_one_folder(own_copy, prediction):
    path = next((own_copy / prediction).rglob(f"{scored_files.NAMES[1]}*.png"))
    addition = "_leftImg8bit"
    twin = path.name.replace(addition, "") if addition in path.name else path.name.replace("_pan", f"{addition}_pan")
    shutil.copy(path, path.parent / twin)
    with pytest.raises(DataError, match="expected one label map of image 'frankfurt_000001_000019', got .* and .*png"):
        score(own_copy, "gt.json", prediction)


def edited(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def warnings(caplog):
    with caplog.at_level("WARNING", "absl"):
        yield caplog


def rename_person(content):
    content["categories"][11]["name"] = "cat"


def invert_things(content):
    for category in content["categories"]:
        category["isthing"] = 1 - category["isthing"]


PREDICTED_IN = {
    "JSON": ("pred.json", {}),
    "predict": ("predict", {}),
    "raw": ("prediction_two_channel_png", {"dataset": "cityscapes_panoptic"}),
}


@pytest.mark.parametrize("prediction", PREDICTED_IN)
def test_warns_of_other_classes_than_those_of_a_truth_in_json(own_copy, warnings, prediction):
    path, options = PREDICTED_IN[prediction]
    score(own_copy, "gt.json", path, **options)
    assert not warnings.messages
    edited(own_copy / "gt.json", rename_person)
    score(own_copy, "gt.json", path, **options)
    assert len(warnings.messages) == 1 and "where 24 is 'cat'; got 'person' for 24" in warnings.messages[0]
    warnings.clear()
    edited(own_copy / "gt.json", lambda content: content["categories"][11].update(name="person"))
    edited(own_copy / "gt.json", invert_things)
    score(own_copy, "gt.json", path, **options)
    assert len(warnings.messages) == 1
    assert "where 'road' is a thing; got stuff (other kinds in all: 19 of 19 classes)" in warnings.messages[0]


def test_warns_of_other_classes_in_json_than_those_of_records(own_copy, warnings):
    arguments = (own_copy, "val-*.tfrecord", "pred.json")
    score(*arguments, dataset="cityscapes_panoptic")
    assert not warnings.messages
    edited(own_copy / "pred.json", rename_person)
    score(*arguments, dataset="cityscapes_panoptic")
    assert ["where 24 is 'person'; got 'cat' for 24" in message for message in warnings.messages] == [True]


def test_records_of_another_data_set_are_refused(own_copy):
    shards = [{"name": path.name} for path in own_copy.glob("val-*.tfrecord")]
    manifest = {"splits": {"val": {"dataset": "cityscapes_panoptic", "shards": shards}}}
    (own_copy / "manifest.json").write_text(json.dumps(manifest))
    score(own_copy, "val-*.tfrecord", "pred.json", dataset="cityscapes_panoptic")
    edited(own_copy / "manifest.json", lambda content: content["splits"]["val"].update(dataset="streets"))
    message = "val-00000-of-00002.tfrecord: expected records of cityscapes_panoptic, got those of streets"
    with pytest.raises(DataError, match=message):
        score(own_copy, "val-*.tfrecord", "pred.json", dataset="cityscapes_panoptic")


@pytest.mark.parametrize("prediction", PREDICTED_IN)
def test_predictions_without_truth_are_told(own_copy, prediction):
    path, options = PREDICTED_IN[prediction]
    lines = []
    run_score(str(own_copy / "gt.json"), str(own_copy / path), Options(**options), 1, None, lines.append)
    assert lines[-1].endswith(f"\n4 images of {own_copy / path}")
    edited(own_copy / "gt.json", lambda content: content["annotations"].pop())
    run_score(str(own_copy / "gt.json"), str(own_copy / path), Options(**options), 1, None, lines.append)
    assert lines[-1].endswith(f"\n3 images of {own_copy / path}; 1 prediction without truth left out")


def test_names_that_the_system_cannot_encode_are_refused_in_one_line(own_copy):
    name = f"{scored_files.NAMES[0]}_gtFine_panoptic.png"
    (own_copy / "gt" / name).rename(own_copy / "gt" / "ä.png")
    edited(own_copy / "gt.json", lambda content: content["annotations"][0].update(file_name="ä.png"))
    command = [sys.executable, "-m", "deeplab2_kmax", "score", f"--truth={own_copy}/gt.json", "--processes=1"]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [*command, f"--prediction={own_copy}/pred.json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **ascii_only},
        timeout=120,
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "the encoding of this system has no such name; set PYTHONUTF8=1" in done.stderr


def test_the_folder_of_a_run_is_told_from_that_of_its_maps(own_copy):
    shutil.copytree(own_copy / "prediction_two_channel_png", own_copy / "run/vis")
    score(own_copy, "gt.json", "run/vis")
    with pytest.raises(UserError, match="expected a folder of raw maps, got that of a run, .*name .* '.*run/vis'"):
        score(own_copy, "gt.json", "run")
