"""Folded layers compute the same as layers that combine their weights at every call; stored variables stay."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.model.layers.axial_attention import AxialAttention
from deeplab2_kmax.model.layers.convolution import ConvNorm, DepthwiseConvNorm, LinearNorm
from deeplab2_kmax.model.layers.folding import fold_batch_norms
from deeplab2_kmax.model.layers.normalization import Normalization

NORM = Normalization()


CASES = {
    "convolution": (lambda: ConvNorm(6, 3, NORM, stride=2, activation="relu"), [2, 9, 7, 4]),
    "depthwise": (lambda: DepthwiseConvNorm(5, NORM, activation="gelu"), [2, 9, 7, 4]),
    "linear": (lambda: LinearNorm(6, NORM, activation="gelu"), [2, 5, 4]),
    "axial": (lambda: AxialAttention(8, 16, NORM), [3, 7, 4]),
}


# Layers are made inside the test, because Keras refuses layers made before another test builds a graph of its own.
@pytest.mark.parametrize("case", CASES)
def test_folded_layers_compute_the_same_from_then_on(case):
    make, shape = CASES[case]
    layer = make()
    random = np.random.RandomState(0)
    x = tf.constant(random.standard_normal(shape), tf.float32)
    layer(x)
    for variable in layer.variables:
        variable.assign(random.uniform(0.5, 1.5, variable.shape))
    model = tf.keras.Sequential([layer])
    expected = model(x)
    stored = {variable.ref(): variable.numpy() for variable in layer.variables}

    fold_batch_norms(model)
    np.testing.assert_allclose(model(x), expected, rtol=1e-6, atol=1e-6)
    assert all(np.array_equal(ref.deref().numpy(), value) for ref, value in stored.items())

    # Changes of the batch norm after folding have no effect.
    norm = layer.qkv_norm if isinstance(layer, AxialAttention) else layer.norm
    norm.gamma.assign(3.0 * norm.gamma)
    np.testing.assert_allclose(model(x), expected, rtol=1e-6, atol=1e-6)
