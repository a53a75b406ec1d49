"""k-means clustering: the hard assignment, and the sums over clusters."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.model.heads import Prediction
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.transformer_decoder import DecoderLayer
from deeplab2_kmax.model.transformer_decoder.kmeans_clustering import KMeansClustering, hard_assignment
from deeplab2_kmax.model.transformer_decoder.settings import TransformerDecoderSettings
from deeplab2_kmax.model.transformer_decoder.update_rule import RuleInput

NORMALIZATION = Normalization(momentum=0.9)
SETTINGS = TransformerDecoderSettings(
    center_channels=6, bottleneck_channels=8, key_channels=8, value_channels=8, num_heads=2
)


def random(*shape):
    return tf.random.stateless_normal(shape, [len(shape), 7])


def test_assigns_every_pixel_to_exactly_one_center_without_gradient():
    logits = tf.Variable(random(2, 5, 6, 4))
    with tf.GradientTape() as tape:
        assignment = hard_assignment(Prediction(logits, None, None))
        total = tf.reduce_sum(assignment)
    np.testing.assert_array_equal(tf.reduce_sum(assignment, -1), np.ones([2, 5, 6]))
    np.testing.assert_array_equal(tf.argmax(assignment, -1), tf.argmax(logits, -1))
    assert tape.gradient(total, logits) is None


def test_update_sums_the_values_of_each_clusters_pixels():
    layer = KMeansClustering(SETTINGS, 8, NORMALIZATION)
    pixels, centers = random(1, 4, 4, 8), random(1, 5, 8)
    prediction = Prediction(random(1, 4, 4, 5), None, None)
    inputs = RuleInput(pixels, centers, centers, None, prediction)
    layer(inputs)
    layer.cluster_projection.norm.gamma.assign(tf.ones([6]))
    update = layer(inputs).center_updates[0]
    assert update.shape == [1, 5, 6]
    values = layer.pixel_value(tf.reshape(pixels, [1, 16, 8])).numpy()[0]
    nearest = tf.reshape(tf.argmax(prediction.mask_logits, -1), [16]).numpy()
    sums = np.stack([values[nearest == center].sum(0) for center in range(5)])[np.newaxis].astype(np.float32)
    np.testing.assert_allclose(update, layer.cluster_projection(layer.cluster_norm(sums)), atol=1e-5)


def test_gives_a_center_without_pixels_nothing_of_the_image():
    layer = KMeansClustering(SETTINGS, 8, NORMALIZATION)
    # Pixels go to centers 0 .. 2; centers 3 and 4 stay empty.
    logits = tf.concat([random(2, 4, 4, 3), tf.fill([2, 4, 4, 2], -9.0)], -1)
    inputs = RuleInput(random(2, 4, 4, 8), random(2, 5, 8), random(2, 5, 6), None, Prediction(logits, None, None))
    layer(inputs)
    projection, norm = layer.cluster_projection, layer.cluster_norm
    projection.norm.gamma.assign(tf.ones([6]))
    update = layer(inputs).center_updates[0].numpy()
    # A sum of zero stays zero as long as the norms shift nothing, which is so in a new layer.
    np.testing.assert_array_equal(update[:, 3:], np.zeros([2, 2, 6]))
    assert (np.abs(update[:, :3]).max(-1) > 1e-3).all()
    # Later it becomes a constant: the same for all empty centers and all images.
    norm.moving_mean.assign(random(8))
    projection.norm.moving_mean.assign(random(6))
    constant = projection(norm(tf.zeros([1, 1, 8])))[0, 0]
    update = layer(inputs).center_updates[0].numpy()
    np.testing.assert_allclose(update[:, 3:], np.broadcast_to(constant, [2, 2, 6]), atol=1e-5)


def test_needs_mask_logits_to_assign_pixels_by():
    rule = KMeansClustering(SETTINGS, 8, NORMALIZATION)
    with pytest.raises(ValueError, match="kmeans_clustering: expected mask logits .*, got no prediction"):
        rule(RuleInput(random(1, 4, 4, 8), random(1, 5, 8), random(1, 5, 6)))


def test_deep_supervision_needs_the_sizes_of_heads():
    with pytest.raises(ValueError, match="stride32_layer1: expected head_settings, as deep_supervision is true, got N"):
        DecoderLayer(SETTINGS, None, NORMALIZATION, name="stride32_layer1")
