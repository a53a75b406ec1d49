"""Pictures in, segments out."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.config import apply_override
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import CheckpointError, ConfigError, DataError
from deeplab2_kmax.serving import Predictor, inference
from deeplab2_kmax.serving.predictor import list_segments


def test_prediction_has_the_size_of_the_picture(predictor, picture):
    prediction = predictor(picture)
    assert prediction.panoptic_map.shape == picture.shape[:2]
    assert prediction.panoptic_map.dtype == np.int32
    assert prediction.overlay().shape == picture.shape
    assert prediction.segments
    ids, areas = np.unique(prediction.panoptic_map, return_counts=True)
    expected = {int(i): int(area) for i, area in zip(ids, areas) if i != prediction.dataset.void_id}
    assert {segment.id: segment.area for segment in prediction.segments} == expected
    scores = [segment.score for segment in prediction.segments]
    assert min(scores) >= 0
    assert 0.1 < max(scores) <= 1


def test_from_checkpoint_equals_from_saved_model(predictor, config, model, checkpoint, picture, monkeypatch):
    # Building takes seconds; the fixture has done it from the same config.
    monkeypatch.setattr(inference, "build_model", lambda _: model)
    from_folder = Predictor.from_checkpoint(config, checkpoint)
    expected = predictor(picture)
    prediction = from_folder(picture)
    # TensorFlow optimizes the graph of an export: where two slots tie but for rounding, a pixel may change sides.
    assert np.mean(prediction.panoptic_map != expected.panoptic_map) < 2e-3
    assert [segment.id for segment in prediction.segments] == [segment.id for segment in expected.segments]


def test_thresholds_of_an_export_can_be_changed(exported, config, model, checkpoint, picture, monkeypatch):
    override = "evaluator_options.maskwise_postprocessing.overlapping_threshold=0.95"
    monkeypatch.setattr(inference, "build_model", lambda _: model)
    changed = type(config)()
    changed.CopyFrom(config)
    apply_override(changed, override)
    expected = Predictor.from_checkpoint(changed, checkpoint)(picture)
    prediction = Predictor.from_saved_model(exported, overrides=[override])(picture)
    assert np.mean(prediction.panoptic_map != expected.panoptic_map) < 2e-3
    built_in = Predictor.from_saved_model(exported)(picture)
    assert np.mean(prediction.panoptic_map != built_in.panoptic_map) > 0.01


@pytest.mark.parametrize(
    "override, message",
    [
        ("eval_dataset_options.crop_size=33,33", "expected overrides of post-processing only"),
        ("evaluator_options.pixel_confidence_threshold=2", "pixel_confidence_threshold"),
        ("evaluator_options.pixel_confidence=0.1", "pixel_confidence"),
    ],
)
def test_other_fields_of_an_export_are_built_in(exported, override, message):
    with pytest.raises(ConfigError, match=message):
        Predictor.from_saved_model(exported, overrides=[override])


def test_segments_are_listed_by_size_with_their_mean_score():
    dataset = load_dataset("shapes")
    thing, stuff = dataset.thing_class_ids[0], dataset.stuff_class_ids[0]
    panoptic = np.zeros((4, 5), np.int32)
    panoptic[:, 2:] = stuff * dataset.label_divisor
    panoptic[0, :2] = thing * dataset.label_divisor + 3
    scores = np.full((4, 5), 0.5)
    scores[0, :2] = 0.25, 0.75
    large, small = list_segments(panoptic, scores + 0.125, dataset)
    assert (large.area, large.is_thing, large.class_id) == (12, False, stuff)
    assert (small.area, small.is_thing, small.score) == (2, True, 0.625)
    assert small.id == thing * dataset.label_divisor + 3
    assert small.class_name == dataset.by_id[thing].name


def test_greyscale_and_rgba_are_taken_as_rgb(predictor, picture):
    grey = picture[..., 0]
    expected = predictor(np.stack([grey] * 3, -1)).panoptic_map
    np.testing.assert_array_equal(predictor(grey).panoptic_map, expected)
    np.testing.assert_array_equal(predictor(grey[..., None]).panoptic_map, expected)
    opaque = np.concatenate([picture, np.full_like(picture[..., :1], 255)], -1)
    np.testing.assert_array_equal(predictor(opaque).panoptic_map, predictor(picture).panoptic_map)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "uint8.*float32"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
    ],
)
def test_other_arrays_are_refused(predictor, image, message):
    with pytest.raises(DataError, match=message):
        predictor(image)


def test_a_folder_without_a_model_is_named(tmp_path, config):
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        Predictor.from_saved_model(tmp_path)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        Predictor.from_checkpoint(config, tmp_path)


def test_the_export_within_the_folder_of_a_run_is_named(tmp_path, exported):
    (tmp_path / "export").symlink_to(exported)
    with pytest.raises(CheckpointError, match=f"found none; there is one in {tmp_path}/export$"):
        Predictor.from_saved_model(tmp_path)


class _DeepLab2Export(tf.Module):
    """What DeepLab2's exports look like from outside: single pictures in, maps with a batch of 1 out."""

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8, name="input_tensor")])
    def __call__(self, input_tensor):
        panoptic = tf.cast(input_tensor[None, ..., 0] > 100, tf.int32) * 257
        score = tf.ones_like(panoptic, tf.float32)
        return {"panoptic_pred": panoptic, "semantic_scores": score, "instance_scores": score}


def test_exports_of_deeplab2_work_once_told_their_classes(tmp_path, picture):
    module = _DeepLab2Export()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__.get_concrete_function())
    with pytest.raises(CheckpointError, match="data set"):
        Predictor.from_saved_model(tmp_path)
    with pytest.raises(ConfigError, match="coco_panoptic"):
        Predictor.from_saved_model(tmp_path, "no_such_data")
    prediction = Predictor.from_saved_model(tmp_path, "shapes")(picture)
    assert [segment.id for segment in prediction.segments] == [257]
    assert prediction.segments[0].score == 1


class _ExportWithWeights(_DeepLab2Export):
    def __init__(self):
        super().__init__()
        self.weight = tf.Variable(tf.range(1000.0))


def _cut(path, share):
    os.truncate(path, int(path.stat().st_size * share))


def _flip(path):
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)


_GRAPH, _DATA, _INDEX = "saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"
DAMAGES = {
    "graph cut": lambda folder: _cut(folder / _GRAPH, 0.5),
    "graph empty": lambda folder: _cut(folder / _GRAPH, 0),
    "graph is no graph": lambda folder: (folder / _GRAPH).write_bytes(b"<html>" * 50),
    "data cut": lambda folder: _cut(folder / _DATA, 0.5),
    "data flipped": lambda folder: _flip(folder / _DATA),
    "data gone": lambda folder: (folder / _DATA).unlink(),
    "index cut": lambda folder: _cut(folder / _INDEX, 0.5),
    "variables gone": lambda folder: shutil.rmtree(folder / "variables"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_export_is_told_in_one_line(tmp_path, damage):
    module = _ExportWithWeights()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__.get_concrete_function())
    DAMAGES[damage](tmp_path)
    with pytest.raises(CheckpointError, match=f"^{tmp_path}: expected .*SavedModel, got ") as told:
        Predictor.from_saved_model(tmp_path, "shapes")
    assert "\n" not in str(told.value)


def test_a_saved_model_of_something_else_is_refused(tmp_path):
    class Doubler(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def __call__(self, values):
            return {"doubled": 2 * values}

    module = Doubler()
    tf.saved_model.save(module, str(tmp_path), signatures=module.__call__.get_concrete_function())
    with pytest.raises(CheckpointError, match="expected an exported segmentation model, got a SavedModel of another"):
        Predictor.from_saved_model(tmp_path, "shapes")


def test_a_hidden_folder_is_not_an_empty_one(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "listdir", refuse)  # root, who may run the tests, may read everything.
    with pytest.raises(CheckpointError, match=f"^{tmp_path}: cannot read this folder: Permission denied$"):
        Predictor.from_saved_model(tmp_path, "shapes")
