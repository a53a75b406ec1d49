"""Exports for other runtimes than TensorFlow: the same predictions, or no export."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.cli.inference_benchmark.models import Source
from deeplab2_kmax.cli.main import _EXPORT_FORMATS
from deeplab2_kmax.cli.predict import OVERLAY, PANOPTIC, SEGMENTS
from deeplab2_kmax.config import load_config
from deeplab2_kmax.datasets.segment_colors import colors_to_ids
from deeplab2_kmax.errors import CheckpointError, ConfigError, UserError
from deeplab2_kmax.pictures import read_image
from deeplab2_kmax.postprocessing import LOGITS, build_postprocessor, undo_resize
from deeplab2_kmax.serving import InferenceModel, Predictor, export, formats, portable

RELEASE = Path(__file__).parents[1] / "golden" / "releases" / "0.1.0"
# The packages that each runtime needs beside TensorFlow.
PACKAGES = {"openvino": ["openvino"], "onnx": ["onnxruntime", "onnx", "tf2onnx"]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a small trained model: with random weights, slots and classes are nearly tied, and rounding decides."""
    folder = tmp_path_factory.mktemp("release")
    with tarfile.open(RELEASE / "model.tar.xz") as archive:
        archive.extractall(folder)
    (run,) = (folder / "run").iterdir()
    return str(run)


@pytest.fixture(scope="module")
def config():
    return load_config(str(RELEASE / "config.textproto"))


@pytest.fixture(scope="module")
def inference_model(config, checkpoint):
    return InferenceModel.from_checkpoint(config, checkpoint)


@pytest.fixture(scope="module")
def picture():
    return read_image(str(RELEASE / "picture.png"))[:50]


@pytest.fixture(scope="module")
def exports(config, inference_model, tmp_path_factory):
    """The folder of the model's export in a format, made once for each."""
    folders = {}

    def folder_of(name):
        for package in PACKAGES.get(name, []):
            pytest.importorskip(package)
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("formats") / name
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(InferenceModel, "from_checkpoint", lambda *_: inference_model)
                export(config, None, folders[name], name)
        return folders[name]

    return folder_of


def test_the_command_line_knows_all_formats():
    assert _EXPORT_FORMATS == formats.NAMES


def test_what_is_said_again_without_tensorflow_is_the_same():
    assert formats.runtime.LOGITS == LOGITS


@pytest.mark.parametrize("name", formats.RUNTIMES)
def test_the_export_says_what_it_is(exports, name):
    folder = exports(name)
    assert sorted(os.listdir(folder)) == sorted(["assets.extra", *formats.RUNTIMES[name].files])
    assert sorted(os.listdir(folder / "assets.extra")) == ["config.textproto", "dataset.json", "export.json"]
    facts = json.loads((folder / "assets.extra" / "export.json").read_text())
    assert facts["format"] == name and facts["input"]["shape"][1:] == [65, 65, 3]
    assert all(facts["differences_from_tensorflow"][logits] < 2e-4 for logits in LOGITS)


@pytest.mark.parametrize("name", formats.RUNTIMES)
def test_predictions_are_those_of_the_model(exports, inference_model, name, picture):
    found = Predictor.from_saved_model(exports(name))
    expected = Predictor(inference_model.segment, inference_model.dataset)
    assert found.dataset == expected.dataset
    # Of one color, nothing is contested between two slots.
    for image in (picture, np.full((20, 30, 3), 90, np.uint8)):
        got, wanted = found(image), expected(image)
        assert np.mean(got.panoptic_map == wanted.panoptic_map) > 0.999
        assert [segment.id for segment in got.segments] == [segment.id for segment in wanted.segments]
        for segment, other in zip(got.segments, wanted.segments):
            assert segment.class_name == other.class_name
            assert segment.score == pytest.approx(other.score, abs=1e-3)
    assert len(expected(picture).segments) > 1


@pytest.mark.parametrize("name", formats.RUNTIMES)
@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_gives_what_the_model_computes(exports, inference_model, name, count):
    runtime = formats.RUNTIMES[name]
    if runtime.batch not in (None, count):
        pytest.skip(f"{runtime.name} takes {runtime.batch} at a time")
    folder = exports(name)
    run = runtime.load({file: (folder / file).read_bytes() for file in runtime.files}, "float32")
    # Not the pictures by which the export itself was tried.
    picture = tf.image.resize(read_image(str(RELEASE / "picture.png")), (65, 65)).numpy()
    images = np.stack([np.roll(picture, 20 * shift, axis=1) for shift in range(count)])
    found = run(images)
    for logits, expected in inference_model.logits_of(tf.constant(images)).items():
        assert np.abs(found[logits] - expected).max() < 2e-4 * np.abs(expected).max()
    for ids in ("panoptic_pred", "semantic_pred", "instance_pred"):
        expected = inference_model.maps_of(tf.constant(images))[ids]
        assert found[ids].shape == expected.shape == (count, 65, 65)
        assert np.mean(found[ids] == expected) > 0.999
        assert len(np.unique(expected)) > 1


@pytest.mark.parametrize("name", formats.RUNTIMES)
def test_thresholds_of_an_export_can_be_changed(exports, config, inference_model, name, picture):
    changed = type(config)()
    changed.CopyFrom(config)
    changed.evaluator_options.pixel_confidence_threshold = 0.9
    images, size = inference_model.input_settings.prepare(tf.constant(picture[None]))
    maps = build_postprocessor(changed)(inference_model.logits_of(images))
    expected = undo_resize(maps, size, picture.shape[:2])["panoptic_pred"][0]
    found = Predictor.from_saved_model(exports(name), overrides=["evaluator_options.pixel_confidence_threshold=0.9"])
    assert np.mean(found(picture).panoptic_map == expected) > 0.999
    assert np.mean(Predictor.from_saved_model(exports(name))(picture).panoptic_map == expected) < 0.999
    with pytest.raises(ConfigError, match="expected overrides of post-processing only"):
        Predictor.from_saved_model(exports(name), overrides=["model_options.precision=mixed_bfloat16"])


def test_the_network_is_computed_in_bfloat16_where_asked_for(exports, inference_model, picture):
    folder = exports("openvino")
    expected = Predictor(inference_model.segment, inference_model.dataset)(picture)
    try:
        found = Predictor.from_saved_model(folder, precision="bfloat16")(picture)
    except UserError as error:
        pytest.skip(str(error))
    assert np.mean(found.panoptic_map == expected.panoptic_map) > 0.9
    scores = np.array([[segment.score for segment in each.segments] for each in (found, expected)])
    # Not float32, of which the scores are equal to 1e-3.
    assert 1e-3 < np.abs(scores[0] - scores[1]).max() < 0.05


def test_a_precision_that_a_runtime_lacks_is_refused(exports):
    with pytest.raises(UserError, match="expected the precision float32, which LiteRT has, got bfloat16"):
        Predictor.from_saved_model(exports("litert"), precision="bfloat16")


@pytest.mark.parametrize("name", formats.RUNTIMES)
def test_exports_are_timed(exports, name):
    source = Source(model=str(exports(name)))
    pictures = np.full((2, 20, 30, 3), 90, np.uint8)
    maps = source.open().segment(pictures)
    np.testing.assert_array_equal(maps[1], Predictor.from_saved_model(source.model)(pictures[1]).panoptic_map)
    assert dataclasses.replace(source, precision="bfloat16").config().model_options.precision == "mixed_bfloat16"


@pytest.mark.parametrize("name", formats.RUNTIMES)
def test_a_damaged_export_is_named(exports, name, tmp_path):
    folder = tmp_path / "export"
    for file in formats.RUNTIMES[name].files:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(exports(name), folder)
        content = (folder / file).read_bytes()
        for damaged in (content[:100], content[:-100] + b"?" + content[-99:]):
            (folder / file).write_bytes(damaged)
            with pytest.raises(CheckpointError, match=f"^{folder / file}: expected the file as .* export it anew"):
                Predictor.from_saved_model(folder)
        (folder / file).unlink()
        with pytest.raises(CheckpointError, match=f"^{folder / file}: cannot read .*: No such file"):
            Predictor.from_saved_model(folder)


@pytest.mark.parametrize("name", formats.RUNTIMES)
def test_conversion_prints_nothing(exports, inference_model, config, name, capfd):
    exports(name)
    capfd.readouterr()
    runtime = formats.RUNTIMES[name]
    runtime.convert(portable.portable_function(config, inference_model, runtime.batch))
    assert "\n(" not in capfd.readouterr().err.replace(" ", "")


@pytest.mark.parametrize("name", formats.RUNTIMES)
def test_operations_that_a_runtime_lacks_are_named(exports, inference_model, config, name, monkeypatch):
    exports(name)
    monkeypatch.setattr(portable, "build_postprocessor", lambda config, portable: build_postprocessor(config))
    runtime = formats.RUNTIMES[name]
    function = portable.portable_function(config, inference_model, runtime.batch)
    with pytest.raises(UserError, match=r"does not support operations .*(DenseBincount|Bitcast).*export a SavedModel"):
        portable.checked_conversion(function, inference_model, runtime)


def _runtime(change):
    """A runtime that is TensorFlow, which changes outputs."""

    def convert(function):
        _runtime.function = function
        return {"model.file": b"content"}

    def load(contents, precision):
        return lambda images: change({k: v.numpy() for k, v in _runtime.function(tf.constant(images)).items()})

    return formats.Runtime("Other", ("model.file",), None, lambda: "other 1.0", convert, load)


def _with_logits(outputs, change):
    return {**outputs, LOGITS[0]: change(outputs[LOGITS[0]])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda o: _with_logits(o, lambda v: v + 3e-3 * np.abs(v).max()),
            f"got {LOGITS[0]} that differ by 0.003 of the",
        ),
        (lambda o: _with_logits(o, lambda v: v * np.nan), f"got {LOGITS[0]} that differ by inf"),
        (lambda o: _with_logits(o, lambda v: v[:1]), f"got {LOGITS[0]} that differ by inf"),
        (lambda o: {**o, "panoptic_pred": o["panoptic_pred"] + 1}, "got panoptic_pred that differ by 1 of the pixels"),
        (lambda o: {}, "other 1.0 fails: KeyError"),
    ],
    ids=["wrong", "not a number", "one picture only", "other ids", "no outputs"],
)
def test_an_export_that_computes_something_else_is_refused(
    config, inference_model, tmp_path, monkeypatch, change, message
):
    monkeypatch.setitem(formats.RUNTIMES, "other", _runtime(change))
    monkeypatch.setattr(InferenceModel, "from_checkpoint", lambda *_: inference_model)
    with pytest.raises(UserError, match=message):
        export(config, None, tmp_path / "export", "other")
    assert os.listdir(tmp_path) == []


def test_an_export_that_computes_the_same_appears(config, inference_model, tmp_path, monkeypatch):
    monkeypatch.setitem(formats.RUNTIMES, "other", _runtime(lambda outputs: outputs))
    monkeypatch.setattr(InferenceModel, "from_checkpoint", lambda *_: inference_model)
    export(config, None, tmp_path / "export", "other")
    assert (tmp_path / "export" / "model.file").read_bytes() == b"content"
    monkeypatch.delitem(formats.RUNTIMES, "other")
    with pytest.raises(CheckpointError, match="formats saved_model, .*, got 'other'"):
        Predictor.from_saved_model(tmp_path / "export")


@pytest.mark.parametrize(
    ("name", "package"), [(name, package) for name, packages in PACKAGES.items() for package in packages]
)
def test_a_missing_runtime_is_named_before_the_model_is_built(config, tmp_path, monkeypatch, name, package):
    for each in PACKAGES[name]:
        monkeypatch.setitem(sys.modules, each, types.SimpleNamespace(__version__="1.0"))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs .*{package}.*: pip install 'deeplab2_kmax\[{name}\]'"):
        export(config, str(tmp_path / "nowhere"), tmp_path / "export", name)
    assert os.listdir(tmp_path) == []


def test_a_runtime_that_crashes_is_named(config, inference_model, monkeypatch):
    runtime = formats.RUNTIMES["litert"]
    # A module that does not answer; its last line is told.
    monkeypatch.setattr(portable, "_MODULE", "deeplab2_kmax.no_such_module")
    with pytest.raises(UserError, match="LiteRT of tensorflow .* fails: .*it ended its process"):
        portable.checked_conversion(portable.portable_function(config, inference_model, 1), inference_model, runtime)


def test_models_that_no_other_runtime_takes_are_refused(config, inference_model, monkeypatch):
    runtime = dataclasses.replace(_runtime(dict), name="Other")
    half = type(config)()
    half.CopyFrom(config)
    half.model_options.precision = "mixed_bfloat16"
    with pytest.raises(ConfigError, match="expected \"float32\" in an export for Other, .*got 'mixed_bfloat16'"):
        portable.require_portable(half, runtime)
    monkeypatch.setattr(InferenceModel, "constant_logits", lambda _: None)
    with pytest.raises(ConfigError, match=r"at most 1.9 GB"):
        portable.portable_function(config, inference_model, None)


# What deeplab2_kmax depends on but NumPy and Pillow, by the names to import.
BEYOND_NUMPY = ["tensorflow", "keras", "tf_keras", "tensorflow_addons", "official", "orbit", "google", "absl", "scipy"]
BEYOND_NUMPY += ["filelock", "google_crc32c", "h5py", "matplotlib", "pycocotools", "yaml", "tqdm"]
COMMAND_WITHOUT = f"""
import sys
for name in {BEYOND_NUMPY}:
    sys.modules[name] = None
from deeplab2_kmax.cli.main import main
main(sys.argv[1:])
"""


def _predict_without_tensorflow(picture, output, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(RELEASE.parents[3])}
    command = [sys.executable, "-c", COMMAND_WITHOUT, "predict", str(picture), "--output", str(output)]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=300
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_a_picture_becomes_the_same_files_without_tensorflow(exports, name, tmp_path):
    folder, picture = exports(name), RELEASE / "picture.png"
    done = _predict_without_tensorflow(picture, tmp_path, "--model", folder)
    assert (done.returncode, done.stderr) == (0, "")
    expected = Predictor.from_saved_model(folder)(read_image(picture))
    found = colors_to_ids(read_image(tmp_path / f"picture{PANOPTIC}"))
    np.testing.assert_array_equal(found, expected.panoptic_map)
    listed = json.loads((tmp_path / f"picture{SEGMENTS}").read_text())["segments"]
    assert [each["id"] for each in listed] == [segment.id for segment in expected.segments]
    assert len(listed) > 1
    drawn = read_image(tmp_path / f"picture{OVERLAY}")
    np.testing.assert_array_equal(drawn, expected.overlay(scale=len(drawn) // len(expected.image)))


def test_without_tensorflow_a_photo_is_decoded_by_pillow(exports, tmp_path):
    folder, photo = exports("openvino"), tmp_path / "photo.jpg"
    Image.fromarray(read_image(RELEASE / "picture.png")).save(photo, quality=95)
    done = _predict_without_tensorflow(photo, tmp_path, "--model", folder)
    assert (done.returncode, done.stderr) == (0, "")
    expected = Predictor.from_saved_model(folder)(np.asarray(Image.open(photo)))
    found = colors_to_ids(read_image(tmp_path / f"photo{PANOPTIC}"))
    np.testing.assert_array_equal(found, expected.panoptic_map)


def test_what_needs_tensorflow_is_named(exports, tmp_path):
    saved_model, picture = tmp_path / "saved_model", RELEASE / "picture.png"
    saved_model.mkdir()
    (saved_model / "saved_model.pb").touch()
    done = _predict_without_tensorflow(picture, tmp_path / "out", "--model", saved_model, "--dataset=shapes")
    assert done.returncode == 1 and done.stderr.startswith(f"error: {saved_model}: a SavedModel needs TensorFlow")
    override = "--override=evaluator_options.pixel_confidence_threshold=0.9"
    done = _predict_without_tensorflow(picture, tmp_path / "out", "--model", exports("openvino"), override)
    assert done.returncode == 1 and done.stderr.startswith("error: to override thresholds needs TensorFlow")
    done = _predict_without_tensorflow(picture, tmp_path / "out", "--model", exports("litert"))
    assert done.returncode == 1 and done.stderr.startswith("error: litert: needs TensorFlow")
    done = _predict_without_tensorflow(picture, tmp_path / "out", "--model", exports("openvino"), "--labels_for=coco")
    assert done.returncode == 1 and done.stderr.startswith("error: this command needs the package pycocotools, which")
    assert not (tmp_path / "out").exists()
