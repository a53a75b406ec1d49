"""Encoders of full size have exactly the variables that DeepLab2's have."""

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
from helpers.encoder_in_model import EncoderInModel

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden"
DEEPLAB2 = json.loads((GOLDEN / "encoder_keys.json").read_text())
# Four of the fifteen in the file, to keep the test short; all fifteen agreed when the file was made. The other
# ConvNeXts are in tests of whole models.
ENCODERS = (
    "kmax_convnext_xlarge",
    "kmax_moat0_pretrain_224_1k",
    "kmax_moat4_finetune_512_no_pe_22k",
    "kmax_tiny_moat1_pretrain_256_1k",
)


@pytest.mark.parametrize("name", ENCODERS)
def test_keys_and_shapes_are_deeplab2s(name):
    config = config_pb2.ExperimentOptions()
    config.model_options.backbone.name = name
    config.model_options.max_deeplab.SetInParent()
    explicit_fields(config)
    with tf.Graph().as_default():  # Nothing is run, so no variable takes memory.
        network = EncoderInModel(build_pixel_encoder(config, Normalization()))
        network(tf.zeros([1, 33, 33, 3]))
    variables = checkpoint_variables(network)
    lines = sorted(f"{key} {variable.shape.as_list()}" for key, variable in variables.items())
    weights = sum(variable.shape.num_elements() for variable in variables.values())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    assert [len(lines), weights, digest] == DEEPLAB2[name]
