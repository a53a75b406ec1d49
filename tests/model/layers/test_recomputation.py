"""Blocks that recompute have the same gradients, statistics and random draws as blocks that keep everything."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.config import load_config
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.layers.mobile_blocks import MOATBlock, MobileConvBlock
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.recomputation import recompute_blocks
from deeplab2_kmax.model.layers.residual_blocks import AxialBlock, BasicBlock, BottleneckBlock
from deeplab2_kmax.model.pixel_encoders.convnext import ConvNeXtBlock

IMAGES = np.random.RandomState(0).uniform(0, 255, [2, 65, 65, 3]).astype(np.float32)


def open_branches(layer):
    """Makes all residual branches count; in a new model they are zero."""
    for index, variable in enumerate(layer.trainable_variables):
        if "gamma" in variable.name or "layer_scale" in variable.name:
            variable.assign(tf.random.stateless_uniform(variable.shape, [1, index], 0.5, 1.5))


def one_pass(layer, x, seed=5):
    """(outputs, gradients of x and all weights, statistics after it) of training on `x`, from the same statistics."""
    start = [variable.numpy() for variable in layer.non_trainable_variables]
    tf.random.set_seed(seed)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = tf.nest.flatten(layer(x, training=True))
        loss = tf.add_n([tf.reduce_sum(tf.sin(y)) for y in outputs])
    gradients = tape.gradient(loss, [x, *layer.trainable_variables])
    statistics = [variable.numpy() for variable in layer.non_trainable_variables]
    for variable, value in zip(layer.non_trainable_variables, start):
        variable.assign(value)
    return outputs, [tf.convert_to_tensor(gradient).numpy() for gradient in gradients], statistics


def assert_same(plain, recomputed):
    for expected, actual in zip(plain[0], recomputed[0]):
        np.testing.assert_array_equal(actual, expected)
    size = np.sqrt(sum(np.square(x).sum() for x in plain[1]))
    difference = np.sqrt(sum(np.square(x - y).sum() for x, y in zip(plain[1], recomputed[1])))
    assert difference < 1e-5 * size
    for expected, actual in zip(plain[2], recomputed[2]):
        np.testing.assert_array_equal(actual, expected)


BLOCKS = {
    "bottleneck": lambda: BottleneckBlock(4, Normalization(), stride=2, keep_prob=0.5),
    "basic": lambda: BasicBlock(4, Normalization(), keep_prob=0.5),
    "axial": lambda: AxialBlock(8, Normalization(), keep_prob=0.5),
    "convnext": lambda: ConvNeXtBlock(16, keep_prob=0.5),
    "mobile": lambda: MobileConvBlock(16, Normalization(), keep_prob=0.5),
    "moat": lambda: MOATBlock(32, Normalization(), keep_prob=0.5, learned_size=7),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks(kind):
    """With drop path: if the recomputation drew again, gradients would be those of other branches."""
    tf.keras.utils.set_random_seed(1)
    block = BLOCKS[kind]()
    x = tf.random.stateless_normal([8, 9, 9, 16], [1, 2])
    block(x)
    open_branches(block)
    plain = one_pass(block, x)
    other = one_pass(block, x, seed=7)
    assert not np.array_equal(plain[0][0], other[0][0])
    block.recomputed = True
    assert_same(plain, one_pass(block, x))


def test_networks(tiny_config):
    """All blocks and decoder layers of a network at once, with auxiliary predictions among the outputs."""
    config = type(tiny_config)()
    config.CopyFrom(tiny_config)
    config.model_options.max_deeplab.transformer_decoder_drop_path_keep_prob = 0.5
    tf.keras.utils.set_random_seed(1)
    model = build_model(config)
    open_branches(model)
    plain = one_pass(model, tf.constant(IMAGES))
    recompute_blocks(model)
    assert_same(plain, one_pass(model, tf.constant(IMAGES)))


def test_in_a_graph():
    tf.keras.utils.set_random_seed(1)
    block = AxialBlock(8, Normalization())
    x = tf.random.stateless_normal([8, 9, 9, 16], [1, 2])
    block(x)
    open_branches(block)
    results = []
    for block.recomputed in (False, True):
        result = tf.function(lambda: _in_graph(block, x), autograph=False)()
        results.append(tf.nest.map_structure(lambda y: y.numpy(), result))
    assert_same(*(([loss], gradients, statistics) for loss, gradients, statistics in results))


def _in_graph(model, x):
    before = [variable.read_value() for variable in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.add_n([tf.reduce_mean(tf.square(y)) for y in tf.nest.flatten(model(x, training=True))])
    gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_variables)]
    with tf.control_dependencies(gradients):
        after = [variable.read_value() for variable in model.non_trainable_variables]
    with tf.control_dependencies(after):
        for variable, value in zip(model.non_trainable_variables, before):
            variable.assign(value)
    return loss, gradients, after


def test_the_field_reaches_every_block(configs, tiny_overrides):
    config = load_config(
        str(configs / "shapes" / "kmax_tiny.textproto"), [*tiny_overrides, "model_options.recompute_blocks=true"]
    )
    named = {layer.name for layer in build_model(config).submodules if getattr(layer, "recomputed", False)}
    # Blocks of the pixel encoder, of the pixel decoder, and layers of the transformer decoder.
    assert {"stage2_block1", "stage0_block1", "stride32_layer1", "stride8_layer1"} <= named
