"""The console command: `predict` on readable and broken files, and mistakes that end in one line."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
import uuid

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax import __version__, files
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
    monkeypatch.setattr(Predictor, "from_saved_model", lambda path, *_: {exported: predictor}[path])
    bad = tmp_path / "in" / "notes.txt"
    bad.write_text("no picture")
    out = tmp_path / "out"
    status, printed, complaints = _run(capsys, "predict", bad, good, "-o", out, "--model", exported)
    assert status == 1
    assert complaints.strip() == f"error: {bad}: expected a picture (JPEG, PNG, ...), got 10 bytes of another kind"
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


def test_predict_writes_labels_for_tools(capsys, monkeypatch, exported, predictor, good, tmp_path):
    monkeypatch.setattr(Predictor, "from_saved_model", lambda path, *_: {exported: predictor}[path])
    words = [
        "predict",
        good,
        "-o",
        tmp_path / "out",
        "--model",
        exported,
        "--labels_for=cvat",
        "--labels_for=label_studio",
    ]
    status, printed, _ = _run(capsys, *words, "--image_url=s3://bucket/")
    assert status == 0
    assert f"labels of 1 picture -> {tmp_path / 'out' / 'cvat.xml'}" in printed
    (task,) = json.loads((tmp_path / "out" / "label_studio.json").read_text())
    assert task["data"]["image"] == "s3://bucket/scene.png"
    assert task["predictions"][0]["model_version"] == exported


def test_predict_into_a_place_that_cannot_be_written(predictor, good, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write into this output folder: Not a directory"):
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
        (
            ["predict", "x.png", "-o", "out", "--model", "m", "--image_url=x/"],
            "--image_url needs --labels_for=label_st",
        ),
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


@pytest.mark.parametrize(
    "words, needed", [(["check-dataset"], ("train", "eval")), (["benchmark", "input"], ("train",))]
)
def test_all_placeholders_that_a_command_needs_are_named_at_once(capsys, configs, words, needed, tmp_path):
    config = tmp_path / "a.textproto"
    text = (configs / "shapes" / "kmax_tiny.textproto").read_text()
    text = text.replace('"shapes_kmax_tiny"', '"${NAME}"').replace("data/shapes/train", "${TRAIN}/a")
    config.write_text(text.replace("data/shapes/val", "${VAL}/a"))
    status, _, errors = _run(capsys, *words, f"--config_file={config}")
    assert status == 1
    for split in ("train", "eval"):
        assert (f"--override={split}_dataset_options.file_pattern=" in errors) == (split in needed)
    assert f"not needed for {' '.join(words)}: experiment_name ${{NAME}}" in errors


def test_unknown_flags_are_refused(capsys):
    status, _, complaints = _run(capsys, "doctor", "--colour")
    assert status == 2
    assert "unrecognized arguments: --colour" in complaints
    assert "did you mean" not in complaints


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["confg"], "config"),
        (["check_dataset"], "check-dataset"),
        (["visualize", "cluster"], "clusters"),
        (["train", "--config_file=a", "--mode=trian"], "train"),
        (["train", "--config_file=a", "--modle_dir=b"], "--model_dir"),
        (["convert", "coco_panotpic"], "coco_panoptic"),
    ],
)
def test_mistyped_commands_choices_and_flags_get_a_suggestion(capsys, arguments, meant):
    status, _, complaints = _run(capsys, *arguments)
    assert status == 2
    assert complaints.endswith(f"; did you mean {meant!r}?\n")


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


def test_predictions_are_written_to_a_remote_folder(predictor, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    remote = f"ram://predictions/{uuid.uuid4().hex}"
    files.write_bytes(f"{remote}/scene.png", good.read_bytes())
    lines = []
    assert predict_files(predictor, [f"{remote}/scene.png"], f"{remote}/out", lines.append, print) == 0
    assert lines[0].startswith(f"{remote}/scene.png (83 x 52) -> {remote}/out/scene_overlay.png")
    assert os.listdir(tmp_path) == ["in"]
    assert files.list_folder(f"{remote}/out") == ["scene_overlay.png", "scene_panoptic.png", "scene_segments.json"]
    with pytest.raises(UserError, match="would overwrite the input"):
        predict_file(predictor, f"{remote}/scene.png", remote, "a", keep=[f"{remote}/../{remote[18:]}/a_panoptic.png"])


# Every command line that ends in --help.
HELP = [
    [],
    ["train"],
    ["eval"],
    ["predict"],
    ["export"],
    ["convert"],
    ["check-dataset"],
    ["convert-checkpoint"],
    ["visualize"],
    ["visualize", "clusters"],
    ["config"],
    ["benchmark"],
    ["benchmark", "input"],
    ["benchmark", "inference"],
    ["doctor"],
]


@pytest.mark.parametrize("words", HELP, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_every_command(capsys, words, flag):
    status, printed, complaints = _run(capsys, *words, flag)
    assert (status, complaints) == (0, "")
    assert printed.startswith(f"usage: {' '.join(['deeplab2-kmax', *words])} ")
    # A sentence on what the command does comes next.
    description = printed.split("\n\n")[1]
    assert description[0].isupper() and "." in description


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_every_flag_has_its_help(words):
    parser = command._parser("deeplab2-kmax")
    for word in words:
        parser = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices[word]
    without = [action.dest for action in parser._actions if not action.help]
    assert [name for name in without if name != argparse.SUPPRESS] == []


def test_the_help_of_convert_lists_all_converters(capsys):
    _, printed, _ = _run(capsys, "convert", "--help")
    folder = pathlib.Path(command.__file__).parents[1] / "converters"
    names = [path.stem for path in folder.glob("*.py") if "    _define_flags()" in path.read_text()]
    assert {"coco", "folder", "voc"} < set(names)
    for name in names:
        assert f"\n  {name} " in printed


def test_config_files_may_be_given_by_name(capsys):
    for words in HELP:
        _, printed, _ = _run(capsys, *words, "--help")
        if "--config_file FILE  " in printed:
            assert "or the name of a shipped config" in " ".join(printed.split())


@pytest.mark.parametrize("words", [[], ["visualize"], ["benchmark"], ["convert"], ["convert", "nothing"]])
def test_half_a_command_is_a_mistake_in_the_flags(capsys, words):
    status, printed, complaints = _run(capsys, *words)
    assert (status, printed) == (2, "")
    assert complaints.startswith("usage: deeplab2-kmax")


def test_a_converter_has_its_own_help():
    process = _python("convert", "shapes", "--help")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("usage: ") and "--num_train" in process.stdout


def test_the_version(capsys):
    status, printed, _ = _run(capsys, "--version")
    assert (status, printed) == (0, f"deeplab2_kmax {__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["predict", "--help"], ["convert", "--help"]])
def test_help_does_not_wait_for_libraries(arguments):
    code = f"""
import sys
from deeplab2_kmax.cli.main import main
try:
    main({arguments})
finally:
    slow = {{"tensorflow", "numpy", "absl", "google.protobuf", "PIL", "scipy", "matplotlib"}} & set(sys.modules)
    assert not slow, slow
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert process.returncode == 0, process.stderr


def test_the_package_runs_as_a_module():
    process = _python("--help", module="deeplab2_kmax")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("usage: python -m deeplab2_kmax ")
    for name in ("train", "eval", "predict", "export", "convert", "config", "doctor"):
        assert f"\n    {name} " in process.stdout
    process = _python("--version", module="deeplab2_kmax")
    assert (process.returncode, process.stdout) == (0, f"deeplab2_kmax {__version__}\n")


def test_doctor_compares_what_is_installed_with_what_is_needed(capsys, monkeypatch):
    from deeplab2_kmax.cli import doctor

    monkeypatch.setattr(doctor, "_tensorflow", lambda: (["device              CPU only"], True, 0))
    monkeypatch.setattr(doctor, "_gpus_of_machine", list)
    installed = np.__version__
    fits = f"<{int(installed.split('.')[0]) + 1},>=1.23"
    requirements = [f"numpy{fits}", "absl-py", 'apache-beam>=99; extra == "beam"', 'old; python_version < "3"']
    monkeypatch.setattr(importlib.metadata, "requires", {"deeplab2_kmax": requirements}.get)
    status, printed, _ = _run(capsys, "doctor")
    assert status == 0
    assert f"\nnumpy               {installed} (needs {fits})\n" in printed
    assert "(any version will do)" in printed and printed.endswith("all is well\n")
    # Neither the extras nor what other versions of Python need.
    assert "beam" not in printed and "\nold" not in printed

    requirements += ["no-such-distribution>=1", "Pillow==0.1"]
    status, printed, _ = _run(capsys, "doctor")
    assert status == 1
    assert "\nno-such-distribution MISSING (needs >=1)\n" in printed
    assert re.search(r"\nPillow +\d[\d.]+ DOES NOT FIT \(needs ==0.1\)\n", printed)
    assert '-m pip install "no-such-distribution>=1" "Pillow==0.1"\n' in printed


def test_doctor_names_packages_that_pythonpath_puts_before_those_of_the_environment(monkeypatch, tmp_path):
    from deeplab2_kmax.cli import doctor

    monkeypatch.setattr(doctor, "_tensorflow", lambda: (["device              CPU only"], True, 0))
    (tmp_path / "official").mkdir()
    for file in ("official/__init__.py", "numpy.py", "mine.py"):
        (tmp_path / file).touch()
    installed = os.path.dirname(os.path.dirname(np.__file__))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([installed, str(tmp_path), str(tmp_path / "missing"), ""]))
    report, well = doctor.diagnose()
    taken = [line for line in report.splitlines() if line.startswith("PYTHONPATH")]
    expected = f"numpy, official from {tmp_path} DOES NOT FIT (unset the environment variable PYTHONPATH)"
    assert taken == [f"PYTHONPATH          {expected}"] and not well
    monkeypatch.setenv("PYTHONPATH", installed)
    assert doctor.diagnose()[1]


def test_doctor_takes_its_list_from_the_installed_package():
    from deeplab2_kmax.cli import doctor

    report, _ = doctor.diagnose()
    for name in ("tensorflow", "tf-models-official", "numpy", "protobuf", "scipy", "tqdm"):
        assert re.search(rf"^{name} +\d", report, flags=re.MULTILINE), report


def test_doctor_says_which_line_of_dependencies_and_which_keras_are_in_use():
    from deeplab2_kmax.cli import doctor

    report, _ = doctor.diagnose()
    tensorflow = "2.20" if sys.version_info >= (3, 12) else "2.15"
    assert re.search(rf"^dependencies +those of Python .*, TensorFlow {tensorflow} and ", report, flags=re.MULTILINE)
    keras = r"\((package tf-keras, legacy|package keras, not legacy)\)"
    assert re.search(rf"^keras +{tensorflow}\.\d+ {keras}$", report, flags=re.MULTILINE)


def test_doctor_refuses_keras_3(monkeypatch):
    import tensorflow as tf

    from deeplab2_kmax.cli import doctor

    package = sys.modules[tf.keras.Model.__module__.partition(".")[0]]
    monkeypatch.setattr(package, "__version__", "3.10.0")
    report, well = doctor.diagnose()
    assert re.search(r"^keras +3.10.0 DOES NOT FIT \(needs Keras 2; ", report, flags=re.MULTILINE) and not well


@pytest.fixture
def machine(monkeypatch):
    """(GPUs that TensorFlow sees, GPUs that the machine has, version of cuDNN) -> doctor's lines after Keras's."""
    import tensorflow as tf

    from deeplab2_kmax.cli import doctor

    def report(seen: int, present: int, cudnn: str | None = None) -> list[str]:
        devices = [tf.config.PhysicalDevice(f"GPU:{number}", "GPU") for number in range(seen)]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda: devices)
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: {"device_name": "seen"})
        monkeypatch.setattr(doctor, "_gpus_of_machine", lambda: ["H200"] * present)
        monkeypatch.setattr(doctor, "_dependencies", lambda requirements: ([], []))

        def version(name):
            if name == "nvidia-cudnn-cu12" and cudnn is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return cudnn

        monkeypatch.setattr(importlib.metadata, "version", version)
        text, well = doctor.diagnose()
        assert well  # The CPU computes.
        lines = text.splitlines()
        return lines[1 + next(number for number, line in enumerate(lines) if line.startswith("keras ")) :]

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return report


def test_doctor_names_gpus_that_tensorflow_cannot_use(machine, monkeypatch):
    used, unused = "device              GPU seen", "GPU                 H200, which TensorFlow does not use"
    on_the_cpu = "all is well on the CPU; for the GPU, see above"
    assert machine(seen=0, present=0) == ["device              CPU only", "all is well"]
    assert machine(seen=2, present=2) == [used, used, "all is well"]
    # Where nvidia-smi does not tell.
    assert machine(seen=1, present=0) == [used, "all is well"]

    install = f'to use the GPU: {sys.executable} -m pip install "deeplab2_kmax[gpu]"'
    assert machine(seen=0, present=2) == ["device              CPU only", unused, unused, install, on_the_cpu]
    driver = machine(seen=0, present=1, cudnn="8.9.4")[-2]
    assert driver.startswith("cuDNN 8.9.4 is installed; is the driver too old ")
    assert machine(seen=1, present=2)[1] == "TensorFlow sees 1 of the 2 GPUs that nvidia-smi lists"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert machine(seen=0, present=1)[2].startswith("CUDA_VISIBLE_DEVICES='-1' hides GPUs from TensorFlow: ")


def test_doctor_finds_the_gpus_of_the_machine(tmp_path, monkeypatch):
    from deeplab2_kmax.cli.doctor import _gpus_of_machine

    root = str(tmp_path)
    monkeypatch.setenv("PATH", root)
    assert _gpus_of_machine(root) == []
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (tmp_path / "dev" / name).touch()
    assert _gpus_of_machine(root) == ["NVIDIA GPU"] * 2
    (tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0").mkdir(parents=True)
    assert _gpus_of_machine(root) == ["NVIDIA GPU"]
    program = tmp_path / "nvidia-smi"
    for text, expected in (
        ("echo NVIDIA H200; echo NVIDIA L4", ["NVIDIA H200", "NVIDIA L4"]),
        ("exit 9", ["NVIDIA GPU"]),
    ):
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        assert _gpus_of_machine(root) == expected


def test_doctor_in_a_checkout_that_is_not_installed(monkeypatch):
    from deeplab2_kmax.cli import doctor

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(doctor, "_tensorflow", lambda: ([], True, 0))
    report, well = doctor.diagnose()
    assert well and "not installed: running from a checkout" in report


def _environment() -> dict:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def _python(*arguments: str, module: str = "deeplab2_kmax.cli.main") -> subprocess.CompletedProcess:
    command_line = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command_line, capture_output=True, text=True, env=_environment())
