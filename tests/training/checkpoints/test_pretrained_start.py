"""When training looks for the encoder's pretrained weights, and when it does not."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints import save_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import load_config
from deeplab2_kmax.converters.shapes import convert_shapes
from deeplab2_kmax.errors import CheckpointError, ConfigError
from deeplab2_kmax.model import build_model
from deeplab2_kmax.training.checkpoints.initial_weights import pretrained_encoder
from deeplab2_kmax.training.mode import Mode
from deeplab2_kmax.training.run.run import Run
from deeplab2_kmax.training.run.run_checks import check_run

FIELD = "model_options.backbone.pretrained_weights"


@pytest.fixture(scope="module")
def make_config(configs, tiny_overrides, tmp_path_factory):
    """pretrained weights -> config of a very small run with two records."""
    folder = tmp_path_factory.mktemp("shapes")
    convert_shapes(str(folder), num_train=1, num_val=1, size=33, num_processes=1)
    patterns = [f"{part}_dataset_options.file_pattern={folder}/*" for part in ("train", "eval")]

    def make(pretrained, *overrides):
        path = str(configs / "shapes" / "kmax_tiny.textproto")
        return load_config(path, [*tiny_overrides, *patterns, f"{FIELD}={pretrained}", *overrides])

    return make


@pytest.fixture(scope="module")
def pretrained(make_config, tmp_path_factory):
    """A model, and the checkpoint it was saved to."""
    model = build_model(make_config(""))
    return model, save_checkpoint(model, str(tmp_path_factory.mktemp("pretrained") / "ckpt"))


def build(config, mode, folder):
    strategy = tf.distribute.OneDeviceStrategy("device:CPU:0")
    check_run(config, mode, str(folder))
    with strategy.scope():
        return Run(config, mode, str(folder), strategy)


def test_a_new_run_starts_from_them_and_a_resumed_one_does_not_need_them(make_config, pretrained, tmp_path, capsys):
    source, path = pretrained
    run = build(make_config(path), Mode.TRAIN, tmp_path)
    assert f"pretrained encoder from {path}: " in capsys.readouterr().out
    loaded, given = checkpoint_variables(run.model), checkpoint_variables(source)
    for key in given:
        if key.startswith("encoder/"):
            np.testing.assert_array_equal(loaded[key], given[key])
    assert (loaded["transformer_decoder/cluster_centers"] != given["transformer_decoder/cluster_centers"]).numpy().any()
    run.global_step.assign(1)
    run.checkpoints.save(check_interval=False)
    gone = make_config("no/such/checkpoint")
    check_run(gone, Mode.EVAL, str(tmp_path))
    build(gone, Mode.TRAIN, tmp_path)
    out = capsys.readouterr().out
    assert "resumed from" in out and "pretrained encoder" not in out


@pytest.mark.parametrize(
    "path, error, words",
    [("no/such/ckpt", CheckpointError, "no/such/ckpt"), ("${PRETRAINED_WEIGHTS}", ConfigError, FIELD)],
)
def test_a_new_run_asks_for_them_before_anything_is_built(make_config, tmp_path, path, error, words):
    with pytest.raises(error, match=words.replace("$", r"\$")):
        check_run(make_config(path), Mode.TRAIN, str(tmp_path))


def test_an_initial_checkpoint_with_an_encoder_makes_them_needless(make_config, pretrained, tmp_path):
    config = make_config("no/such/checkpoint", f"model_options.initial_checkpoint={pretrained[1]}")
    check_run(config, Mode.TRAIN, str(tmp_path))
    assert pretrained_encoder(str(tmp_path), config.model_options) == ""
    headless = tf.train.Checkpoint(pixel_decoder=tf.train.Checkpoint(x=tf.Variable(1.0))).write(str(tmp_path / "ckpt"))
    config.model_options.initial_checkpoint = headless
    assert pretrained_encoder(str(tmp_path / "run"), config.model_options) == "no/such/checkpoint"
