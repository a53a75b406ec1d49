"""Fusion of features of different strides and widths."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.model.layers.fusion import CoarseToFineFusion, ResizedFusion
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.resize import resize_bilinear

NORMALIZATION = Normalization()


def random(*shape):
    return tf.random.stateless_normal(shape, [len(shape), 7])


def test_features_are_activated_and_projected_then_resized_to_the_last_and_added():
    coarse, fine = random(2, 3, 4, 6), random(2, 5, 7, 10)
    layer = CoarseToFineFusion(8, NORMALIZATION, "gelu")
    actual = layer([coarse, fine])
    projected = [project(tf.nn.gelu(x)) for project, x in ((layer.coarse, coarse), (layer.fine, fine))]
    np.testing.assert_allclose(actual, resize_bilinear(projected[0], [5, 7]) + projected[1], atol=1e-5)


@pytest.mark.parametrize("kind", [CoarseToFineFusion, ResizedFusion])
def test_a_feature_with_the_wanted_channels_is_taken_as_it_is(kind):
    coarse, fine = random(2, 3, 4, 8), random(2, 5, 7, 8)
    layer = kind(8, NORMALIZATION, activation="relu")
    np.testing.assert_allclose(layer([coarse, fine]), resize_bilinear(coarse, [5, 7]) + fine, atol=1e-6)
    assert layer.variables == []


def test_a_first_feature_of_half_the_stride_is_projected_with_stride_2():
    features = [random(2, 5, 7, 6), random(2, 3, 4, 8), random(2, 3, 4, 8)]
    layer = ResizedFusion(8, NORMALIZATION, "relu", halve_first=True)
    actual = layer(features)
    assert layer.projections == [None, None, None]
    expected = layer.strided(tf.nn.relu(features[0])) + features[1] + features[2]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_where_sizes_are_unknown_all_features_but_the_last_are_resized():
    layer = ResizedFusion(8, NORMALIZATION)
    features = [random(2, 3, 4, 8), random(2, 5, 7, 8), random(2, 5, 7, 8)]
    expected = layer(features)
    spec = tf.TensorSpec([None, None, None, 8])
    apply = tf.function(lambda *x: layer(x)).get_concrete_function(spec, spec, spec)
    resized = [operation for operation in apply.graph.get_operations() if operation.type == "ResizeBilinear"]
    assert len(resized) == 2
    np.testing.assert_array_equal(apply(*features), expected)
