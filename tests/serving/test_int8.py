"""Exports for OpenVINO whose network computes in INT8."""

from __future__ import annotations

import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.config import load_config
from deeplab2_kmax.converters.shapes import convert_shapes
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.pictures import read_image
from deeplab2_kmax.serving import InferenceModel, Predictor, export, formats, int8

RELEASE = Path(__file__).parents[1] / "golden" / "releases" / "0.1.0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a small trained model, pictures, and records of two images with labels."""
    folder = tmp_path_factory.mktemp("int8")
    with tarfile.open(RELEASE / "model.tar.xz") as archive:
        archive.extractall(folder)
    picture = read_image(str(RELEASE / "picture.png"))
    (folder / "pictures").mkdir()
    for turns in range(3):
        Image.fromarray(np.rot90(picture, turns).copy()).save(folder / "pictures" / f"{turns}.png")
    (folder / "pictures" / "notes.txt").write_text("no picture")
    convert_shapes(str(folder / "records"), num_train=1, num_val=2, size=65, seed=1, num_processes=1)
    return folder


@pytest.fixture(scope="module")
def config(folder):
    records = f"eval_dataset_options.file_pattern={folder}/records/val-*.tfrecord"
    return load_config(str(RELEASE / "config.textproto"), [records])


@pytest.fixture(scope="module")
def exported(folder, config):
    pytest.importorskip("nncf")
    (run,) = (folder / "run").iterdir()
    with pytest.MonkeyPatch.context() as patch:
        # The model has had a few hundred steps, and few of its slots are sure.
        patch.setattr(int8, "_PIXELS_TOLERANCE", 0.6)
        return Path(export(config, str(run), folder / "int8", "openvino", folder / "pictures"))


def test_the_network_computes_in_int8_and_post_processing_does_not(exported):
    graph = (exported / "model.xml").read_text()
    assert graph.count('type="FakeQuantize"') > 20
    runtime = formats.RUNTIMES["openvino"]
    run = runtime.load({name: (exported / name).read_bytes() for name in runtime.files}, "float32")
    outputs = run(np.full((2, 65, 65, 3), 90, np.float32))
    # Post-processing takes its logits as they are.
    assert outputs["panoptic_pred"].shape == (2, 65, 65)
    np.testing.assert_array_equal(outputs["panoptic_pred"][0], outputs["panoptic_pred"][1])


def test_predictions_are_near_those_of_the_model(exported, folder):
    picture = read_image(str(RELEASE / "picture.png"))
    (run,) = (folder / "run").iterdir()
    config = load_config(str(RELEASE / "config.textproto"))
    expected = Predictor.from_checkpoint(config, str(run))(picture).panoptic_map
    found = Predictor.from_saved_model(exported)(picture).panoptic_map
    assert 0.5 < np.mean(found == expected) < 1


def test_the_export_says_what_int8_costs(exported):
    facts = json.loads((exported / "assets.extra" / "export.json").read_text())
    assert facts["differences_from_tensorflow"]["panoptic_pred"] < 1e-3
    cost = facts["int8"]
    assert cost["pictures"] == 3
    assert 0 < cost["differences_from_tensorflow"]["panoptic_pred"] < 0.6
    quality = cost["panoptic_quality"]
    assert quality["images"] == 2 and quality["float32"] > 0 and quality["int8"] > 0
    line = int8.cost_of(str(exported))
    assert line.startswith("INT8 by 3 pictures: maps equal to those in float32 at ")
    assert f"; PQ {100 * quality['float32']:.2f} -> {100 * quality['int8']:.2f} on 2 images of the eval" in line


def test_what_loses_the_maps_is_refused(folder, config, monkeypatch):
    (run,) = (folder / "run").iterdir()
    model = InferenceModel.from_checkpoint(config, str(run))
    pixels = {"panoptic_pred": 0.3}
    monkeypatch.setattr(int8, "differences_from_tensorflow", lambda *_: pixels)
    runtime = formats.Runtime("Other", (), None, str, dict, lambda *_: lambda _: {}, quantize=lambda contents, *_: {})
    pictures = int8.require_pictures(runtime, "other", str(folder / "pictures"))
    with pytest.raises(UserError, match="in INT8 to be those in float32 at 80% of pixels, got 70%; give more pictures"):
        int8.quantized(config, model, runtime, {}, pictures)
    # Without labels, there is no panoptic quality.
    pixels["panoptic_pred"] = 0.1
    unlabelled = load_config(str(RELEASE / "config.textproto"))
    assert int8.quantized(unlabelled, model, runtime, {}, pictures) == (
        {},
        {"pictures": 3, "differences_from_tensorflow": pixels},
    )


def test_mistakes_are_named_before_the_model_is_built(folder, config, tmp_path, monkeypatch):
    def refused(file_format, pictures, message):
        with pytest.raises(UserError, match=message):
            export(config, str(tmp_path / "nowhere"), tmp_path / "export", file_format, pictures)
        assert os.listdir(tmp_path) == []

    refused("saved_model", folder / "pictures", "--quantize: expected --format=openvino, .*, got saved_model")
    refused("litert", folder / "pictures", "--quantize: expected --format=openvino, .*, got litert")
    pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, "nncf", None)
    refused("openvino", folder / "pictures", r"needs NNCF .*pip install 'deeplab2_kmax\[openvino\]'")
    monkeypatch.setitem(sys.modules, "nncf", object())
    refused("openvino", folder / "records", "expected a folder with pictures .*, got none in .*/records")
    refused("openvino", folder / "nowhere", "cannot read the folder .*/nowhere: No such file")
