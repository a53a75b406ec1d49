"""MOAT as a pixel encoder."""

import json

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.model.layers import relative_attention
from deeplab2_kmax.model.layers.mobile_blocks import MobileConvBlock
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.relative_attention import RelativeAttention, bias_of_rows, biases_by_column
from deeplab2_kmax.model.pixel_encoders.moat import MOAT, MOATSettings
from helpers.encoder_in_model import EncoderInModel

NARROW = {"stem_channels": 8, "stage_filters": (8, 16, 32, 64), "stage_blocks": (1, 2, 2, 1)}


def random(*shape):
    return tf.random.stateless_normal(shape, [len(shape), 3])


@pytest.mark.parametrize("case, position_embedding", [("position", True), ("no_position", False)])
def test_stages_equal_deeplab2(golden, golden_value, case, position_embedding):
    expected = np.load(golden / "moat_narrow.npz")
    image = expected["image"].astype(np.float32) / 127.5 - 1.0
    network = EncoderInModel(MOAT(MOATSettings(**NARROW, position_embedding=position_embedding), Normalization()))
    network(image)
    variables = checkpoint_variables(network)
    keys = json.loads((golden / "moat_narrow.keys.json").read_text())[case]
    assert {key: list(variable.shape) for key, variable in variables.items()} == keys
    for key, variable in variables.items():
        variable.assign(golden_value(key, variable.shape))
    for training, mode in ((False, ""), (True, "training/")):
        features = network(image, training=training)
        for stage in range(1, 6):
            sampled = features[f"stage{stage}"].numpy().reshape(-1)[:: 13 if stage < 4 else 1]
            figures = expected[f"{case}/{mode}stage{stage}"]
            np.testing.assert_allclose(sampled, figures, rtol=0, atol=1e-5 * np.abs(figures).max())


def test_keep_probability_falls_by_the_block():
    """The last block is kept with more than `keep_prob`, which one block more than there are would have."""
    encoder = MOAT(MOATSettings(**NARROW, keep_prob=0.4), Normalization())
    blocks = [block for stage in encoder.moat_stages for block in stage]
    np.testing.assert_allclose([block.keep_prob for block in blocks], [1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    assert blocks[-1].convolution.keep_prob == blocks[-1].keep_prob


def test_relative_bias_is_looked_up_by_offset():
    table = random(2, 5, 7)
    biases = biases_by_column(table, 4)
    bias = bias_of_rows(biases, 0, 3, 3).numpy().reshape(2, 3, 4, 3, 4)
    for top, left, bottom, right in np.ndindex(3, 4, 3, 4):
        expected = table[:, bottom - top + 2, right - left + 3]
        np.testing.assert_array_equal(bias[:, top, left, bottom, right], expected)
    np.testing.assert_array_equal(bias_of_rows(biases, 1, 2, 3), bias[:, 1:].reshape(2, 8, 12))
    height = tf.constant(3)
    np.testing.assert_array_equal(bias_of_rows(biases, 0, height, height), bias.reshape(2, 12, 12))


def test_a_few_rows_at_a_time_attend_as_all_rows_at_once(monkeypatch):
    layer = RelativeAttention(64, learned_size=3)
    x = random(2, 5, 4, 64)
    expected = layer(x)
    monkeypatch.setattr(relative_attention, "_LOGITS_AT_ONCE", 2 * 2 * 5 * 4**2)  # Two, two and one of five rows.
    assert layer._chunks(5, 4) == [(0, 2), (2, 2), (4, 1)]
    np.testing.assert_allclose(layer(x), expected, atol=1e-6)


def test_attention_takes_maps_of_any_size():
    layer = RelativeAttention(64, learned_size=3)
    layer(random(1, 3, 3, 64))
    apply = tf.function(layer).get_concrete_function(tf.TensorSpec([None, None, None, 64]))
    for size in ((1, 3, 3), (2, 4, 5)):
        x = random(*size, 64)
        np.testing.assert_allclose(apply(x), layer(x), atol=1e-5)


def test_block_with_absorbed_batch_norms_equals_the_block_with_layers():
    """Inference folds the norms into the convolutions; training, with the same statistics, does not."""
    block = MobileConvBlock(6, Normalization(), stride=2)
    x = random(3, 7, 9, 4)
    block(x)
    for layer in (block.pre_norm, block.expand_norm, block.depthwise_norm):
        layer.settings = Normalization(momentum=0.0)
        layer.gamma.assign(1.0 + 0.3 * random(*layer.gamma.shape))
        layer.beta.assign(0.3 * random(*layer.beta.shape))
    expected = block(x, training=True)
    np.testing.assert_allclose(block(x, training=False), expected, atol=1e-5)


def test_every_weight_has_a_gradient():
    encoder = MOAT(MOATSettings(**NARROW), Normalization())
    with tf.GradientTape() as tape:
        total = tf.add_n(
            [tf.reduce_sum(feature**2) for feature in encoder(random(1, 65, 65, 3), training=True).values()]
        )
    assert all(gradient is not None for gradient in tape.gradient(total, encoder.trainable_variables))
