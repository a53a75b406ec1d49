"""ConvNeXt as a pixel encoder of kMaX."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.config import load_config
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.layers.layer_norm import LayerNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.pixel_encoders.convnext import ConvNeXt, ConvNeXtBlock, ConvNeXtSettings

TINY = ConvNeXtSettings((4, 6, 8, 10), (1, 2, 1, 1), 0.6)


def random(*shape):
    return tf.random.stateless_normal(shape, [len(shape), 3])


def test_full_model_equals_deeplab2(configs, assert_equals_deeplab2):
    """Inference on weights that depend on the checkpoint key; the checkpoint has DeepLab2's keys, each used once."""
    model = build_model(load_config(str(configs / "coco" / "kmax_convnext_tiny.textproto")))
    assert_equals_deeplab2(model, "kmax_convnext_tiny_coco")


@pytest.mark.parametrize("side, sides", [(65, (17, 17, 9, 5, 3)), (64, (16, 16, 8, 4, 2))])
def test_strides(side, sides):
    features = ConvNeXt(TINY, Normalization())(random(2, side, side, 3))
    assert [features[f"stage{stage}"].shape[1] for stage in range(1, 6)] == list(sides)


def test_keep_probability_falls_by_the_block():
    encoder = ConvNeXt(TINY, Normalization())
    blocks = [block for group in encoder.block_groups for block in group]
    np.testing.assert_allclose([block.keep_prob for block in blocks], [1.0, 0.9, 0.8, 0.7, 0.6])


def test_new_block_is_close_to_the_identity_and_drops_whole_images():
    block = ConvNeXtBlock(8, keep_prob=0.5)
    x = random(64, 5, 6, 8)
    np.testing.assert_allclose(block(x, training=False), x, atol=1e-4)
    block.layer_scale.assign(tf.ones_like(block.layer_scale))
    block.projection.bias.assign(tf.ones([8]))
    whole = (block(x, training=False) - x).numpy()
    dropped = (block(x, training=True) - x).numpy()
    kept = np.abs(dropped).max(axis=(1, 2, 3)) > 0
    assert 0 < kept.sum() < 64
    np.testing.assert_allclose(dropped[kept], 2 * whole[kept], atol=1e-4)


def test_layer_norm_absorbed_by_a_convolution():
    """The zeros around an image are normalized too: to beta, which the absorbed convolution has in its bias."""
    norm = LayerNorm()
    x, kernel, bias = 3.0 * random(2, 5, 7, 6) + 1.0, random(2, 2, 6, 4), random(4)
    norm.build(x.shape)
    norm.gamma.assign(random(6))
    norm.beta.assign(tf.reverse(random(6), [0]))
    padded = tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]])
    expected = tf.nn.conv2d(norm(padded), kernel, 2, "VALID") + bias
    absorbed, shift = norm.absorbed_by(kernel, bias)
    actual = tf.nn.conv2d(norm.whiten(x), absorbed, 2, [[0, 0], [0, 1], [0, 1], [0, 0]]) + shift
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    reference = tf.keras.layers.LayerNormalization(epsilon=1e-6)
    reference.build(x.shape)
    reference.set_weights([norm.gamma.numpy(), norm.beta.numpy()])
    np.testing.assert_allclose(norm(x), reference(x), atol=1e-5)


def test_every_weight_has_a_gradient():
    encoder = ConvNeXt(TINY, Normalization())
    x = random(1, 33, 33, 3)
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(feature**2) for feature in encoder(x, training=False).values()])
    gradients = tape.gradient(total, encoder.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    assert len(gradients) == 4 + 3 * 4 + 5 * 9
