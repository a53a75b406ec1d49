"""Properties of single layers."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.model.layers import normalization
from deeplab2_kmax.model.layers.axial_attention import AxialAttention, AxialAttention2D
from deeplab2_kmax.model.layers.convolution import dilated_convolution
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization, SummedBatchNorm
from deeplab2_kmax.model.layers.regularization import drop_path, linear_keep_prob
from deeplab2_kmax.model.layers.residual_blocks import AxialBlock, BasicBlock, BottleneckBlock
from deeplab2_kmax.model.layers.resize import resize_bilinear

NORMALIZATION = Normalization(momentum=0.9)


def random(*shape):
    return tf.random.stateless_normal(shape, [len(shape), 7])


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_batch_norm_whitens_each_channel(rank):
    x = 3.0 * random(*([5] * (rank - 1)), 4) + 2.0
    y = BatchNorm(NORMALIZATION)(x, training=True)
    axes = list(range(rank - 1))
    np.testing.assert_allclose(tf.reduce_mean(y, axes), np.zeros(4), atol=1e-4)
    np.testing.assert_allclose(tf.math.reduce_std(y, axes), np.ones(4), atol=1e-3)


def test_summed_batch_norm_adds_whitened_tensors():
    layer = SummedBatchNorm(NORMALIZATION, 2, [1, 3, 1, 1])
    tensors = [5.0 * random(4, 3, 6, 6), random(4, 3, 6, 6) + 1.0]
    whitened = [(x - tf.reduce_mean(x, [0, 2, 3], True)) / tf.math.reduce_std(x, [0, 2, 3], True) for x in tensors]
    np.testing.assert_allclose(layer(tensors, training=True), whitened[0] + whitened[1], atol=5e-3)


@pytest.mark.parametrize(
    "block",
    [BottleneckBlock(4, NORMALIZATION), AxialBlock(8, NORMALIZATION), BasicBlock(4, NORMALIZATION)],
    ids=["bottleneck", "axial", "basic"],
)
def test_a_new_residual_block_returns_its_shortcut(block):
    x = random(2, 5, 7, block.output_channels)
    np.testing.assert_allclose(block(x, training=False), block.activate(x), atol=1e-6)


@pytest.mark.parametrize("kind", [BottleneckBlock, AxialBlock, BasicBlock])
@pytest.mark.parametrize("channels", [32, 12])
def test_striding_block_keeps_corner_pixels_with_and_without_projection(kind, channels):
    block = kind(8, NORMALIZATION, activation="relu", stride=2)
    x = random(2, 5, 7, channels)
    y = block(x, training=False)
    assert y.shape == [2, 3, 4, 32]
    if channels == 32:
        np.testing.assert_allclose(y, tf.nn.relu(x)[:, ::2, ::2], atol=1e-6)


def test_axial_attention_takes_any_length():
    layer = AxialAttention(8, 16, NORMALIZATION)
    layer(random(1, 3, 8))
    apply = tf.function(layer).get_concrete_function(tf.TensorSpec([None, None, 8]))
    for length in (1, 4, 300):
        x = random(2, length, 8)
        np.testing.assert_allclose(apply(x), layer(x), atol=1e-4)


def test_axial_attention_computes_the_same_in_training_and_inference():
    layer = AxialAttention(16, 32, Normalization(momentum=0.0))
    x = random(6, 5, 12)
    layer(x)
    for index, variable in enumerate(layer.trainable_variables):
        variable.assign(tf.random.stateless_normal(variable.shape, [index, 3]))
    trained = layer(x, training=True)
    # With a momentum of zero the moving statistics are those of the batch.
    np.testing.assert_allclose(layer(x, training=False), trained, atol=1e-3)


def test_strided_axial_attention_attends_to_all_positions_of_an_axis():
    attention = AxialAttention2D(8, 16, NORMALIZATION, stride=2)
    x = random(2, 5, 7, 8)
    strided = attention(x)
    columns = attention.height_axis(tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [14, 5, 8]))
    columns = tf.transpose(tf.reshape(columns, [2, 7, 5, 16]), [0, 2, 1, 3])[:, ::2]
    rows = tf.reshape(attention.width_axis(tf.reshape(columns, [6, 7, 16])), [2, 3, 7, 16])[:, :, ::2]
    np.testing.assert_allclose(strided, rows, atol=1e-5)


def test_resize_keeps_the_corners_and_doubles_exactly():
    x = random(1, 3, 4, 2)
    y = resize_bilinear(x, [5, 7]).numpy()
    np.testing.assert_allclose(y[:, ::2, ::2], x, atol=1e-6)
    np.testing.assert_allclose(y[:, 1, 0], (x[:, 0, 0] + x[:, 1, 0]) / 2, atol=1e-6)


def test_drop_path_keeps_the_expectation_and_whole_images():
    x = tf.ones([4000, 2, 2, 1])
    assert drop_path(x, 0.8, training=False) is x
    y = drop_path(x, 0.8, training=True).numpy()
    assert set(np.round(np.unique(y), 4)) == {0.0, 1.25}
    assert (y.std(axis=(1, 2, 3)) == 0).all()
    assert abs(y.mean() - 1.0) < 0.05
    assert linear_keep_prob(0.8, 4, 4) == pytest.approx(0.8)


@pytest.mark.parametrize("axis", [-1, 1])
def test_batch_norm_gradient_is_that_of_its_formula(axis):
    layer = BatchNorm(NORMALIZATION, axis=axis)
    x, weight = tf.Variable(2.0 * random(3, 6, 5, 6) + 1.0), random(3, 6, 5, 6)
    layer.build(x.shape)
    layer.gamma.assign(random(6))
    to_end = [0, 1, 2, 3] if axis == -1 else [0, 2, 3, 1]
    with tf.GradientTape(persistent=True) as tape:
        written_out = tf.reduce_sum(layer(x, training=True) * weight)
        channels_last = tf.transpose(x, to_end)
        mean, variance = tf.nn.moments(channels_last, [0, 1, 2])
        derived = tf.nn.batch_normalization(
            channels_last, mean, variance, layer.beta, layer.gamma, NORMALIZATION.epsilon
        )
        derived = tf.reduce_sum(derived * tf.transpose(weight, to_end))
    for variable in (x, layer.gamma, layer.beta):
        actual, expected = tape.gradient(written_out, variable), tape.gradient(derived, variable)
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [[7, 4], [2, 3, 4], [2, 3, 5, 4], [1, 1, 1, 4]])
def test_fused_batch_norm_is_the_formula(shape, monkeypatch):
    """Outputs, gradients and moving statistics are the same, also for a single position (variance 0)."""
    x, weight = 2.0 * random(*shape) + 1.0, random(*shape)
    results = []
    for dtypes in (normalization.FUSED_DTYPES, ()):
        monkeypatch.setattr(normalization, "FUSED_DTYPES", dtypes)
        layer = BatchNorm(NORMALIZATION)
        layer.build(x.shape)
        layer.gamma.assign(random(4))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        gradients = tape.gradient(y, [x, layer.gamma, layer.beta], weight)
        results.append([y, *gradients, layer.moving_mean.numpy(), layer.moving_variance.numpy()])
    for fused, formula in zip(*results):
        np.testing.assert_allclose(fused, formula, atol=2e-5)


def test_the_variance_of_a_single_value_is_0_whatever_the_kernel_says(monkeypatch):
    """cuDNN returns NaN for it, which the moving variance would keep."""

    def kernel(x, scale, **_):
        return x, scale, scale * np.nan

    monkeypatch.setattr(tf.raw_ops, "FusedBatchNorm", kernel)
    layer = BatchNorm(NORMALIZATION)
    layer.build([1, 1, 1, 4])
    layer(random(1, 1, 1, 4), training=True)
    np.testing.assert_allclose(layer.moving_variance, NORMALIZATION.momentum * np.ones(4))


@pytest.mark.parametrize("dilation", [2, 4, 6, 9])
def test_dilated_convolution_and_its_gradient(dilation):
    """On 7 x 9 pixels: 2 by space-to-batch; 4 and 6 tap by tap; with 9 only the centre tap is in the image."""
    x, kernel, weight = random(2, 7, 9, 3), random(3, 3, 3, 4), random(2, 7, 9, 4)
    spread = np.zeros([2 * dilation + 1, 2 * dilation + 1, 3, 4], np.float32)
    spread[::dilation, ::dilation] = kernel
    spread = tf.constant(spread)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, kernel, spread])
        actual = dilated_convolution(x, kernel, dilation)
        expected = tf.nn.conv2d(x, spread, 1, "SAME")
        losses = [tf.reduce_sum(y * weight) for y in (actual, expected)]
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    np.testing.assert_allclose(*(tape.gradient(loss, x) for loss in losses), atol=1e-4)
    of_kernel = tape.gradient(losses[1], spread)[::dilation, ::dilation]
    np.testing.assert_allclose(tape.gradient(losses[0], kernel), of_kernel, atol=1e-3)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_under_xla_a_large_mean_beside_a_small_deviation_stays_finite(dtype):
    layer = BatchNorm(Normalization(momentum=0.0))
    x = tf.cast(300 + 0.01 * np.random.RandomState(0).standard_normal((4, 9, 9, 16)), dtype)

    def outputs_and_gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, x)

    layer.build(x.shape)
    y, gradient = normalization.xla_compiled(outputs_and_gradients)(x)
    for values in (y, gradient, layer.moving_mean, layer.moving_variance):
        assert np.isfinite(tf.cast(values, tf.float32)).all()
    assert (layer.moving_variance.numpy() >= 0).all()
    # Elsewhere, the fused kernels are as before.
    x = tf.random.stateless_normal([4, 9, 9, 16], [1, 2])
    fused = tf.raw_ops.FusedBatchNorm(
        x=x, scale=layer.gamma, offset=layer.beta, mean=[], variance=[], epsilon=1e-3, is_training=True
    )
    np.testing.assert_array_equal(layer(x, training=True), fused.y)
    np.testing.assert_allclose(normalization.xla_compiled(outputs_and_gradients)(x)[0], fused.y, atol=1e-5)
