"""The console command: `predict` on good and bad files, and mistakes that end in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.cli import main as command
from deeplab2_kmax.cli.predict import predict_file, predict_files
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.serving import Predictor


def _run(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    # sys.exit("error: ...") prints in the interpreter, after this.
    code = ended.value.code
    return (1, captured.out, captured.err + code) if isinstance(code, str) else (code, captured.out, captured.err)


@pytest.fixture
def good(tmp_path, picture):
    path = tmp_path / "in" / "scene.png"
    path.parent.mkdir()
    Image.fromarray(picture).save(path)
    return path


def test_predict_writes_results_names_bad_files_and_goes_on(
    capsys, monkeypatch, exported, predictor, good, tmp_path, picture
):
    # Loading takes seconds; the fixture has done it the same way.
    monkeypatch.setattr(Predictor, "from_saved_model", lambda path, dataset: {exported: predictor}[path])
    bad = tmp_path / "in" / "notes.txt"
    bad.write_text("no picture")
    out = tmp_path / "out"
    status, printed, complaints = _run(capsys, "predict", bad, good, "-o", out, "--model", exported)
    assert status == 1
    assert complaints.strip() == f"error: {bad}: expected a picture (JPEG, PNG, ...), the file is none"
    assert sorted(os.listdir(out)) == ["scene_overlay.png", "scene_panoptic.png", "scene_segments.json"]

    table = json.loads((out / "scene_segments.json").read_text())
    assert (table["height"], table["width"], table["dataset"]) == (52, 83, "shapes")
    for segment in table["segments"]:
        assert segment["class_name"] in printed
    ids = np.asarray(Image.open(out / "scene_panoptic.png")).astype(int) @ [1, 256, 65536]
    for segment in table["segments"]:
        assert (ids == segment["id"]).sum() == segment["area"]
    # Small pictures are enlarged, so that names can be read.
    assert Image.open(out / "scene_overlay.png").size == (83 * 9, 52 * 9)
    np.testing.assert_array_equal(np.asarray(Image.open(good)), picture)


def test_predict_into_a_place_that_cannot_be_written(predictor, good, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make this output folder"):
        predict_files(predictor, [str(good)], tmp_path / "file", print, print)


def test_predict_never_overwrites_its_input(predictor, picture, tmp_path):
    inputs = [tmp_path / "scene.png", tmp_path / "scene_overlay.png"]
    for path in inputs:
        Image.fromarray(picture).save(path)
    with pytest.raises(UserError, match="scene_overlay.png"):
        predict_file(predictor, str(inputs[0]), tmp_path, "scene", keep=inputs)
    np.testing.assert_array_equal(np.asarray(Image.open(inputs[1])), picture)
    assert len(os.listdir(tmp_path)) == 2


def test_pictures_of_one_name_from_two_folders_both_get_results(predictor, picture, tmp_path):
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(str(tmp_path / folder / "scene.png"))
        Image.fromarray(picture).save(paths[-1])
    assert predict_files(predictor, paths, tmp_path / "out", lambda _: None, print) == 0
    results = sorted(name for name in os.listdir(tmp_path / "out") if name.endswith(".json"))
    assert results == ["scene_2_segments.json", "scene_segments.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "x.png", "-o", "out"], "--model DIR"),
        (["predict", "x.png", "-o", "out", "--model", "m", "--checkpoint", "c"], "--model DIR"),
        (["predict", "x.png", "-o", "out", "--model", "nowhere"], "nowhere: expected the folder of a SavedModel"),
        (["config", "--config_file", "nowhere.textproto"], "nowhere.textproto"),
        (["export", "--config_file", "nowhere.textproto", "--checkpoint", "c", "-o", "e"], "nowhere.textproto"),
        (["train", "--config_file", "nowhere.textproto"], "nowhere.textproto"),
    ],
)
def test_mistakes_end_in_one_line(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, complaints = _run(capsys, *arguments)
    assert status == 1
    assert complaints.startswith("error: ")
    assert message in complaints
    assert printed == ""
    assert os.listdir(tmp_path) == []


def test_unknown_flags_are_refused(capsys):
    status, _, complaints = _run(capsys, "doctor", "--colour")
    assert status == 2
    assert "unrecognized arguments: --colour" in complaints


def test_config_prints_what_load_config_reads_back(capsys, config, tmp_path):
    from deeplab2_kmax.config import config_to_text, load_config

    path = tmp_path / "config.textproto"
    path.write_text(config_to_text(config))
    status, printed, _ = _run(capsys, "config", "--config_file", path, "--override", "experiment_name=renamed")
    assert status == 0
    path.write_text(printed)
    assert load_config(str(path)).experiment_name == "renamed"


def test_train_and_eval_pass_their_flags_on(capsys, config, tmp_path, monkeypatch):
    from deeplab2_kmax import training
    from deeplab2_kmax.config import config_to_text

    path = tmp_path / "config.textproto"
    path.write_text(config_to_text(config))
    calls = []
    monkeypatch.setattr(
        training, "run_experiment", lambda config, mode, *rest, **named: calls.append((mode, rest, named))
    )
    _run(capsys, "train", "--config_file", path, "--mode", "train_and_eval", "--num_gpus", "2")
    _run(capsys, "eval", "--config_file", path, "--model_dir", "m", "--master", "tpu")
    assert calls == [
        ("train_and_eval", ("runs",), {"num_gpus": 2, "master": None}),
        ("eval", ("m",), {"num_gpus": 0, "master": "tpu"}),
    ]


def test_convert_passes_its_flags_on(tmp_path):
    process = _python("convert", "shapes", f"--output_dir={tmp_path}", "--num_train=1", "--num_val=0", "--size=33")
    assert process.returncode == 0, process.stderr
    assert sorted(os.listdir(tmp_path)) == ["example.png", "manifest.json", "train-00000-of-00001.tfrecord"]


def test_help_does_not_wait_for_tensorflow():
    code = "import sys\nfrom deeplab2_kmax.cli.main import main\ntry: main(['--help'])\nfinally:"
    code += " assert not {'tensorflow', 'numpy', 'google.protobuf'} & set(sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert process.returncode == 0, process.stderr
    for name in ("train", "eval", "predict", "export", "convert", "config", "doctor"):
        assert f"    {name}" in process.stdout


def test_doctor_names_what_is_missing(capsys, monkeypatch):
    from deeplab2_kmax.cli import doctor

    status, printed, _ = _run(capsys, "doctor")
    assert status == 0
    assert "tensorflow " in printed
    monkeypatch.setitem(doctor._NEEDED, "no-such-distribution", "nothing at all")
    status, printed, _ = _run(capsys, "doctor")
    assert status == 1
    assert "pip install no-such-distribution" in printed


def _environment() -> dict:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def _python(*arguments: str) -> subprocess.CompletedProcess:
    command_line = [sys.executable, "-m", "deeplab2_kmax.cli.main", *arguments]
    return subprocess.run(command_line, capture_output=True, text=True, env=_environment())
