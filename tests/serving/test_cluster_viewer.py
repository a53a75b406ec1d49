"""`visualize clusters`: the model's assignments at the picture's place, files, and mistakes that end in one line."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.cli import main as command
from deeplab2_kmax.cli.visualize import draw_file, draw_files
from deeplab2_kmax.config import config_to_text, load_config
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.serving import ClusterViewer
from deeplab2_kmax.visualization.clusters.layer_views import FINAL

LAYERS = ["stride32_layer1", "stride16_layer1", "stride8_layer1", "stride8_layer2"]


@pytest.fixture(scope="module")
def viewer(config, checkpoint):
    return ClusterViewer.from_checkpoint(config, checkpoint)


@pytest.fixture(scope="module")
def views(viewer, picture):
    return viewer(picture)


@pytest.fixture(scope="module")
def named(model, picture):
    """Intermediates of the network for the picture of 52 x 83, which fits the crop of 65 x 65 as 40 x 65."""
    resized = tf.compat.v1.image.resize(picture[None], (40, 65), align_corners=True)
    return model.intermediates(tf.pad(resized, [[0, 0], [0, 25], [0, 0], [0, 0]], constant_values=127.5))


def test_views_are_the_models_intermediates(views, model, named):
    assert [view.name for view in views.layers] == [*LAYERS, FINAL]
    assert [view.stride for view in views.layers] == [32, 16, 8, 8, 4]
    for view in views.layers[:-1]:
        place = f"transformer_decoder/{view.name}"
        np.testing.assert_allclose(view.assignment, named[f"{place}/assignment"][0], atol=1e-4)
        centers = named[f"{place}/centers_after"][0].numpy()
        # Random weights make ever longer centers, and with them rounding errors grow: logits of 500 are 0.07 off.
        np.testing.assert_allclose(view.centers, centers, atol=1e-3 * np.abs(centers).max())
    masks = tf.nn.softmax(named["outputs/pixel_space_mask_logits"][0])
    np.testing.assert_allclose(views.layers[-1].assignment, masks, atol=0.05)
    np.testing.assert_array_equal(views.initial_centers, model.transformer_decoder.cluster_centers[0])
    assert views.extent == (39 / 64, 1)
    assert views.subtitle.startswith("k-means clustering") and views.subtitle.endswith("ckpt-7")


def test_segments_are_those_of_prediction(views, predictor, picture):
    # The predictor runs an export: where two slots tie but for rounding, a pixel may change sides.
    assert np.mean(views.panoptic != predictor(picture).panoptic_map) < 2e-3


def test_classes_are_the_most_probable_ones(views, named):
    probabilities = tf.nn.softmax(named["outputs/transformer_class_logits"][0]).numpy()
    classes = [views.dataset.by_id[i] for i in views.dataset.index_to_class_id]
    names, colors = [c.name for c in classes], [c.color for c in classes]
    for name, score, color, row in zip(views.class_names, views.class_scores, views.class_colors, probabilities):
        assert (name, tuple(color)) == list(zip([*names, ""], [*colors, (128, 128, 128)]))[row.argmax()]
        assert score == pytest.approx(row.max(), abs=1e-4)


def test_only_some_layers(viewer, picture):
    chosen = viewer(picture, ["stride8_layer2", "stride32_layer1"])
    assert [view.name for view in chosen.layers] == ["stride32_layer1", "stride8_layer2", FINAL]
    with pytest.raises(UserError, match="expected some of stride32_layer1, .*; got stride4_layer1; did you mean 'str"):
        viewer(picture, ["stride32_layer1", "stride4_layer1"])


# Experiment -> the layers that have an assignment.
SOFT = {"max_deeplab_tiny": ["stage5_layer1", "extra_stage_layer1"], "cmt_tiny": LAYERS[:3]}


@pytest.mark.parametrize("experiment", SOFT)
def test_new_networks_of_soft_rules(configs, tiny_overrides, experiment, picture):
    # MaX-DeepLab's own skeleton has no use for the widths of the other.
    overrides = tiny_overrides[:2] if experiment == "max_deeplab_tiny" else tiny_overrides
    config = load_config(str(configs / "shapes" / f"{experiment}.textproto"), overrides)
    viewer = ClusterViewer.from_checkpoint(config, None)
    views = viewer(picture)
    assert [view.name for view in views.layers] == [*SOFT[experiment], FINAL]
    for view in views.layers:
        np.testing.assert_allclose(view.assignment.sum(-1), 1, atol=1e-5)
        assert 0 < view.assignment.max() < 1
    assert "random weights" in views.subtitle


def test_command_draws_pictures_and_names_bad_files(capsys, viewer, config, checkpoint, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Building takes seconds; the fixture has done it the same way.
    monkeypatch.setattr(ClusterViewer, "from_checkpoint", lambda config, path: {checkpoint: viewer}[path])
    Image.fromarray(picture).save("scene.png")
    (tmp_path / "config.textproto").write_text(config_to_text(config))
    arguments = ["visualize", "clusters", "scene.png", "nowhere.jpg", "--config_file", "config.textproto"]
    arguments += ["--checkpoint", checkpoint, "-o", "out", "--layers", "stride32_layer1,stride8_layer2"]
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    printed, complaints = capsys.readouterr()
    assert ended.value.code == 1
    assert complaints.startswith("error: nowhere.jpg: ") and complaints.count("\n") == 1
    assert "scene.png (83 x 52) -> out/scene_clusters.png" in printed
    assert [line.split()[0] for line in printed.splitlines()[2:]] == ["stride32_layer1", "stride8_layer2", FINAL]
    files = ["clusters", FINAL, "stride32_layer1", "stride8_layer2"]
    assert sorted(os.listdir("out")) == [f"scene_{name}.png" for name in files]
    assert Image.open("out/scene_clusters.png").width == 1600
    # Small pictures are enlarged, as their overlays are.
    assert {Image.open(f"out/scene_{name}.png").size for name in files[1:]} == {(83 * 9, 52 * 9)}


def test_large_pictures_are_shrunk(viewer, picture, tmp_path):
    path = tmp_path / "large.png"
    Image.fromarray(picture).resize((2400, 30)).save(path)
    draw_file(viewer, str(path), tmp_path, "large", ["stride32_layer1"])
    assert Image.open(tmp_path / "large_stride32_layer1.png").size == (1600, 20)


def test_inputs_are_never_overwritten(viewer, picture, tmp_path):
    inputs = [tmp_path / "scene.png", tmp_path / "scene_clusters.png"]
    for path in inputs:
        Image.fromarray(picture).save(path)
    with pytest.raises(UserError, match="would overwrite the input .*scene_clusters.png"):
        draw_file(viewer, str(inputs[0]), tmp_path, "scene", keep=inputs)
    assert len(os.listdir(tmp_path)) == 2


def test_unknown_layers_are_named_before_anything_is_written(viewer, tmp_path):
    with pytest.raises(UserError, match="got stride2_layer1"):
        draw_files(viewer, ["a.png"], tmp_path / "out", ["stride2_layer1"], print, print)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config_file", "nowhere.textproto", "--checkpoint", "c"], "nowhere.textproto"),
        (["--config_file", "config.textproto", "--checkpoint", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.textproto").write_text(config_to_text(config))
    with pytest.raises(SystemExit) as ended:
        command.main(["visualize", "clusters", "scene.png", "-o", "out", *arguments])
    assert ended.value.code.startswith("error: ") and "\n" not in ended.value.code
    assert message in ended.value.code
    assert os.listdir(tmp_path) == ["config.textproto"]


def test_a_view_and_a_checkpoint_have_to_be_named(capsys):
    for arguments, message in (
        (["visualize"], "VIEW"),
        (["visualize", "clusters", "a.png", "-o", "out"], "--config_file, --checkpoint"),
    ):
        with pytest.raises(SystemExit) as ended:
            command.main(arguments)
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
