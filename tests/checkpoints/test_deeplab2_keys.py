"""Every kMaX and MaX config of DeepLab2 builds a model with exactly the checkpoint keys and shapes of DeepLab2's.

That each also restores such a checkpoint takes minutes and, for MaX-L, gigabytes, and is left out of the suite:
`pytest -m slow tests/checkpoints` shows it.
"""

import functools
import gzip
import json
import lzma
import pathlib
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format, text_format
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.ops.resource_variable_ops import UninitializedVariable

from deeplab2_kmax.checkpoints import load_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import config_to_text, load_config
from deeplab2_kmax.model import build_model
from deeplab2_kmax.protos import config_pb2

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
EXPERIMENTS = json.loads(gzip.decompress((GOLDEN / "deeplab2_configs.json.gz").read_bytes()))
KEYS = json.loads(lzma.decompress((GOLDEN / "checkpoint_keys.json.xz").read_bytes()))
# Fields that do not change which variables a model has.
TRAINING_ONLY = {
    "": ("initial_checkpoint",),
    "backbone": ("pretrained_weights", "drop_path_keep_prob", "drop_path_schedule"),
    "max_deeplab": (
        "instance_discrimination_sample_k",
        "instance_discrimination_sample_temperature",
        "semantic_sample_k",
        "semantic_sample_temperature",
        "transformer_decoder_drop_path_keep_prob",
    ),
}


def architecture_of(config):
    """What is left of a config without all that training alone reads, as text."""
    left = config_pb2.ExperimentOptions(model_options=config.model_options)
    left.train_dataset_options.dataset = config.train_dataset_options.dataset
    for name, fields in TRAINING_ONLY.items():
        message = getattr(left.model_options, name) if name else left.model_options
        for field in fields:
            message.ClearField(field)
    return text_format.MessageToString(left)


@functools.cache
def shapes_by_key(architecture):
    """{checkpoint key: shape} of the model that a config, as text, builds. No weight gets a value: that takes long."""

    def without_value(_, **options):
        return UninitializedVariable(**{name: options[name] for name in ("trainable", "shape", "dtype", "name")})

    config = text_format.Parse(architecture, config_pb2.ExperimentOptions())
    # The graph of a function, not tf.Graph: in that Keras falls back to its old layers, and breaks those made before.
    with FuncGraph("shapes").as_default(), tf.variable_creator_scope(without_value):
        model = build_model(config)
    return {key: list(variable.shape) for key, variable in checkpoint_variables(model).items()}


def deeplab2s_config(experiment, folder):
    """The config of one of DeepLab2's experiments, loaded from a file."""
    path = folder / "experiment.textproto"
    path.write_text(config_to_text(json_format.ParseDict(EXPERIMENTS[experiment], config_pb2.ExperimentOptions())))
    return load_config(str(path))


def _repeats_an_encoder(experiment):
    """Other data sets with an encoder that COCO's experiments have: each takes 5 seconds, and differs in a head."""
    return experiment.startswith(("ade20k", "cityscapes")) and "r50" not in experiment.replace("axial_r50", "")


@pytest.mark.parametrize(
    "experiment",
    [pytest.param(name, marks=pytest.mark.slow) if _repeats_an_encoder(name) else name for name in sorted(EXPERIMENTS)],
)
def test_keys_and_shapes_are_deeplab2s(experiment, tmp_path):
    expected = KEYS["architectures"][KEYS["experiments"][experiment]]
    assert shapes_by_key(architecture_of(deeplab2s_config(experiment, tmp_path))) == expected


@pytest.mark.slow
@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
def test_checkpoints_restore_strictly_and_whole(experiment, tmp_path, write_golden_checkpoint, golden_value):
    config = deeplab2s_config(experiment, tmp_path)
    keys = KEYS["architectures"][KEYS["experiments"][experiment]]
    model = build_model(config)
    # pytest would keep what is in tmp_path, up to 2 GB for each experiment.
    with tempfile.TemporaryDirectory() as folder:
        report = load_checkpoint(model, write_golden_checkpoint(keys, f"{folder}/ckpt"))
    assert report.complete and set(report.loaded) == set(keys)
    for key, variable in checkpoint_variables(model).items():
        np.testing.assert_array_equal(variable.numpy(), golden_value(key, variable.shape), err_msg=key)
