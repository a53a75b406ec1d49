"""Mixed precision, for every encoder and every update rule: what runs in 16 bits, and what stays float32."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints import load_checkpoint, save_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.layers.folding import fold_batch_norms
from deeplab2_kmax.model.layers.precision import layers_in
from deeplab2_kmax.protos import config_pb2

IMAGES = np.random.RandomState(0).uniform(0, 255, [2, 65, 65, 3]).astype(np.float32)
ENCODERS = {
    "kmax_resnet50": (4, 4, 8, 8),
    "kmax_axial_resnet50": (4, 4, 8, 8),
    "kmax_convnext_tiny": (4, 8, 8, 16),
    "kmax_tiny_moat0": (8, 16, 32, 32),
}


def in_precision(config, precision):
    result = config_pb2.ExperimentOptions()
    result.CopyFrom(config)
    result.model_options.precision = precision
    return result


@pytest.fixture
def with_encoder(configs, tiny_overrides):
    """Name of an encoder -> the tiny experiment with one block of it in each stage.

    The update rule is attention, which is smooth. In k-means rounding would decide between two centers that are almost
    equally near to a pixel.
    """
    rule = "model_options.max_deeplab.transformer_decoder.update_rule=max"

    def make(name):
        config = load_config(str(configs / "shapes" / "kmax_tiny.textproto"), [*tiny_overrides, rule])
        backbone = config.model_options.backbone
        backbone.Clear()
        backbone.name = name
        backbone.stage_filters.extend(ENCODERS[name])
        backbone.stage_blocks.extend([1, 1, 1, 1])
        if name != "kmax_convnext_tiny":
            backbone.stem_channels = 8
        if "moat" in name:
            backbone.position_embedding = True
        config.model_options.max_deeplab.pixel_decoder.num_blocks[:] = [1, 1, 1, 1]
        return config

    return make


def pair(config, precision, folder):
    """Models of the same weights in float32 and in `precision`, the second restored from the first's checkpoint."""
    tf.keras.utils.set_random_seed(1)
    precise = build_model(config)
    for key, variable in checkpoint_variables(precise).items():
        if key.endswith("gamma"):  # So that no residual branch is zero, as in a new model.
            variable.assign(tf.random.stateless_uniform(variable.shape, [1, len(key)], 0.5, 1.5))
    mixed = build_model(in_precision(config, precision))
    load_checkpoint(mixed, save_checkpoint(precise, str(folder / "weights")))
    return precise, mixed


def trained(model):
    """(outputs, gradients) of one training pass with the sum of all outputs' squares as loss."""
    with tf.GradientTape() as tape:
        outputs = model(IMAGES, training=True)
        loss = tf.add_n([tf.reduce_mean(tf.square(x)) for x in tf.nest.flatten(outputs)])
    return outputs, tape.gradient(loss, model.trainable_variables)


def check(config, precision, folder, tolerance):
    precise, mixed = pair(config, precision, folder)
    assert {v.dtype for v in mixed.variables} == {tf.float32}
    expected, actual = precise(IMAGES, training=False), mixed(IMAGES, training=False)
    for name, value in actual.items():
        assert value.dtype == tf.float32
        difference = np.sqrt(np.mean(np.square(value - expected[name])) / np.mean(np.square(expected[name])))
        assert 0 < difference < tolerance, name
    outputs, gradients = trained(mixed)
    assert {x.dtype for x in tf.nest.flatten(outputs)} == {tf.float32}
    assert {x.dtype for x in gradients} == {tf.float32}
    assert np.isfinite(tf.linalg.global_norm(gradients))
    assert {x.dtype for x in mixed.intermediates(IMAGES).values()} == {tf.float32}
    # Training has changed the moving statistics. Folding them into the kernels must not change the outputs.
    before = mixed(IMAGES, training=False)
    fold_batch_norms(mixed)
    after = mixed(IMAGES, training=False)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_in_bfloat16(with_encoder, name, tmp_path):
    check(with_encoder(name), "mixed_bfloat16", tmp_path, 0.1)


@pytest.mark.parametrize("rule", ["max", "cmt"])
def test_update_rules_in_bfloat16(tiny_max_config, rule, tmp_path):
    config = tiny_max_config(f"model_options.max_deeplab.transformer_decoder.update_rule={rule}")
    check(config, "mixed_bfloat16", tmp_path, 0.1)


def test_k_means_in_bfloat16(tiny_config, tmp_path):
    check(tiny_config, "mixed_bfloat16", tmp_path, 1.0)


def test_float16(tiny_max_config, tmp_path):
    check(tiny_max_config(), "mixed_float16", tmp_path, 0.02)


def graph_types(model, training):
    """{kind of operation: types it runs in} in the graph of `model`."""
    graph = tf.function(lambda x: model(x, training=training), autograph=False)
    types: dict = {}
    for operation in graph.get_concrete_function(tf.TensorSpec([2, 65, 65, 3])).graph.get_operations():
        types.setdefault(operation.type, []).append(operation.outputs[0].dtype if operation.outputs else None)
    return types


def test_convolutions_run_in_bfloat16_and_sums_in_float32(tiny_config):
    types = graph_types(build_model(in_precision(tiny_config, "mixed_bfloat16")), training=True)
    for convolution in ("Conv2D", "DepthwiseConv2dNative"):
        assert set(types[convolution]) == {tf.bfloat16}
    # Sums over the pixels of a cluster and over attended values are float32, and so is the product for mask logits.
    assert types["MatMul"].count(tf.bfloat16) > types["MatMul"].count(tf.float32)
    for accumulates in ("Softmax", "Rsqrt", "ArgMax", "AssignSubVariableOp"):
        assert tf.bfloat16 not in types[accumulates]
    assert tf.bfloat16 not in {x for x in types["Mean"]}


def test_precision_is_the_models_own(tiny_config):
    """Building a model does not change the process' policy, and the policy does not change the model."""
    before = tf.keras.mixed_precision.global_policy().name
    mixed = build_model(in_precision(tiny_config, "mixed_bfloat16"))
    assert tf.keras.mixed_precision.global_policy().name == before
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        precise = build_model(tiny_config)
        assert tf.keras.mixed_precision.global_policy().name == "mixed_bfloat16"
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
    assert tf.bfloat16 not in graph_types(precise, training=False)["Conv2D"]
    assert set(graph_types(mixed, training=False)["Conv2D"]) == {tf.bfloat16}


def test_policy_is_restored_after_an_error():
    before = tf.keras.mixed_precision.global_policy().name
    with pytest.raises(RuntimeError), layers_in("mixed_bfloat16"):
        assert tf.keras.layers.Dense(1).compute_dtype == "bfloat16"
        raise RuntimeError
    assert tf.keras.mixed_precision.global_policy().name == before


def test_unknown_precision(configs):
    with pytest.raises(
        ConfigError, match="precision: expected one of float32, mixed_bfloat16, mixed_float16; got 'bf16'"
    ):
        load_config(str(configs / "shapes" / "kmax_tiny.textproto"), ["model_options.precision=bf16"])
