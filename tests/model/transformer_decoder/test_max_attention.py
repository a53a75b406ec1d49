"""A decoder layer with MaX attention equals DeepLab2's dual-path transformer layer, wherever it stands."""

import json

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.transformer_decoder import DecoderLayer, TransformerDecoderSettings
from deeplab2_kmax.model.transformer_decoder.max_attention import share_of_attention

SETTINGS = TransformerDecoderSettings(
    num_centers=6,
    center_channels=16,
    bottleneck_channels=32,
    key_channels=16,
    value_channels=32,
    num_heads=4,
    feed_forward_channels=24,
    activation="relu",
    update_rule="max",
    deep_supervision=False,
)
PIXEL_UPDATES = {"dual_path": "attention", "centers_only": "none"}


class Encoder(tf.keras.layers.Layer):
    """Stands for whatever holds the layer; the attribute's name begins its checkpoint keys."""

    def __init__(self, pixel_update):
        super().__init__()
        settings = TransformerDecoderSettings(**{**vars(SETTINGS), "pixel_update": pixel_update})
        self.layer = DecoderLayer(settings, None, Normalization(momentum=0.9))


@pytest.fixture(scope="module", params=PIXEL_UPDATES)
def filled(request, golden, golden_value):
    """(name of the case, layer with golden values, the case, its variables by checkpoint key)."""
    case = np.load(golden / "max_attention_layer.npz")
    shapes = json.loads((golden / "max_attention_layer.keys.json").read_text())[request.param]
    encoder = Encoder(PIXEL_UPDATES[request.param])
    encoder.layer(case["pixels"], case["centers"])
    variables = checkpoint_variables(encoder)
    assert {key: list(variable.shape) for key, variable in variables.items()} == shapes
    return request.param, encoder.layer, case, variables


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_equals_deeplab2(filled, mode, golden_value):
    name, layer, case, variables = filled
    for key, variable in variables.items():
        variable.assign(golden_value(key, tuple(variable.shape)))
    output = layer(case["pixels"], case["centers"], training=mode == "training")
    for part, tolerance in (("pixels", 1e-5), ("centers", 1e-5)):
        expected = case[f"{name}/{mode}/{part}"]
        np.testing.assert_allclose(getattr(output, part), expected, atol=tolerance * np.abs(expected).max())
    if mode == "training":
        for key in (key for key in case.files if key.startswith(f"{name}/moving/")):
            np.testing.assert_allclose(variables[key.split("/moving/")[1]], case[key], atol=1e-5, err_msg=key)


def test_assignment_sums_to_one_over_centers(filled):
    _, layer, case, _ = filled
    assignment = layer(case["pixels"], case["centers"]).assignment
    assert assignment.shape == [2, 5, 7, 6]
    np.testing.assert_allclose(tf.reduce_sum(assignment, -1), np.ones([2, 5, 7]), atol=1e-5)
    assert np.min(assignment) >= 0 and np.std(assignment) > 1e-4


def test_any_batch_and_size(filled):
    _, layer, case, _ = filled
    apply = tf.function(layer).get_concrete_function(
        tf.TensorSpec([None, None, None, 24]), tf.TensorSpec([None, 6, 16]), training=False
    )
    pixels = case["pixels"][:1, :3, :4]
    for actual, expected in zip(
        tf.nest.flatten(apply(tf.constant(pixels), tf.constant(case["centers"][:1]))),
        [x for x in layer(pixels, case["centers"][:1]) if x is not None],
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_new_layer_is_the_identity_up_to_its_activation():
    layer = Encoder("attention").layer
    pixels, centers = tf.random.normal([2, 4, 4, 12]), tf.random.normal([2, 6, 16])
    for training in (False, True):
        output = layer(pixels, centers, training=training)
        np.testing.assert_allclose(output.pixels, pixels, atol=1e-6)
        np.testing.assert_allclose(output.centers, tf.nn.relu(centers), atol=1e-6)


def test_a_pixel_that_receives_no_attention_is_shared_evenly():
    attention = tf.constant(
        [[[[0.5, 0.0], [0.25, 0.0]], [[0.5, 0.0], [0.75, 0.0]]]]
    )  # [1, 2 heads, 2 centers, 2 pixels]
    share = share_of_attention(attention)
    np.testing.assert_allclose(share, [[[0.5, 0.5], [0.5, 0.5]]])
    ordinary = tf.random.stateless_uniform([2, 3, 4, 5], [0, 1], 1e-6, 1.0)
    received = tf.reduce_mean(ordinary, 1)
    np.testing.assert_array_equal(
        share_of_attention(ordinary), tf.transpose(received / tf.reduce_sum(received, 1, keepdims=True), [0, 2, 1])
    )
