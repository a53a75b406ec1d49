"""Encoders of full size have exactly the variables of DeepLab2's."""

import hashlib
import json
import pathlib

import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config.explicit import explicit_fields
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.pixel_encoders import build_pixel_encoder
from deeplab2_kmax.protos import config_pb2

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden"
DEEPLAB2 = json.loads((GOLDEN / "encoder_keys.json").read_text())
# Of the fifteen in the file; all fit when it was made. The other ConvNeXts stand in whole models' tests.
ENCODERS = (
    "kmax_convnext_xlarge",
    "kmax_moat0_pretrain_224_1k",
    "kmax_moat4_finetune_512_no_pe_22k",
    "kmax_tiny_moat1_pretrain_256_1k",
)


class Network(tf.keras.Model):
    def __init__(self, pixel_encoder):
        super().__init__()
        self.pixel_encoder = pixel_encoder

    def call(self, x):
        return self.pixel_encoder(x)


@pytest.mark.parametrize("name", ENCODERS)
def test_keys_and_shapes_are_deeplab2s(name):
    config = config_pb2.ExperimentOptions()
    config.model_options.backbone.name = name
    config.model_options.max_deeplab.SetInParent()
    explicit_fields(config)
    with tf.Graph().as_default():  # Nothing is run, so that no variable takes memory.
        network = Network(build_pixel_encoder(config, Normalization()))
        network(tf.zeros([1, 33, 33, 3]))
    variables = checkpoint_variables(network)
    lines = sorted(f"{key} {variable.shape.as_list()}" for key, variable in variables.items())
    weights = sum(variable.shape.num_elements() for variable in variables.values())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    assert [len(lines), weights, digest] == DEEPLAB2[name]
