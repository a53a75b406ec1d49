"""CMT-style clustering: each equation of docs/cmt.md, and the properties it should have."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.resize import resize_bilinear
from deeplab2_kmax.model.transformer_decoder import DecoderLayer, TransformerDecoderSettings
from deeplab2_kmax.model.transformer_decoder.cmt_clustering import CmtClustering
from deeplab2_kmax.model.transformer_decoder.location import CoordinateConvolution, reference_masks
from deeplab2_kmax.model.transformer_decoder.update_rule import RuleInput

NORMALIZATION = Normalization(momentum=0.9)
SETTINGS = TransformerDecoderSettings(
    center_channels=8,
    bottleneck_channels=8,
    key_channels=4,
    value_channels=8,
    num_heads=2,
    feed_forward_channels=8,
    update_rule="cmt",
    deep_supervision=False,
    pixel_update="assignment",
    residual_assignment=True,
    location_sensitive=True,
)


def random(*shape, seed=7):
    return tf.random.stateless_normal(shape, [len(shape), seed])


def rule_and_inputs(previous=None, **fields):
    """(built rule with random batch norms and boxes, its inputs): 2 images, 4 x 5 pixels of 6 channels, 3 centers."""
    rule = CmtClustering(dataclasses.replace(SETTINGS, **fields), 6, NORMALIZATION)
    centers = random(2, 3, 8)
    inputs = RuleInput(random(2, 4, 5, 8), tf.nn.relu(centers), centers, previous)
    rule(inputs)
    for seed, variable in enumerate(rule.variables):
        if "kernel" not in variable.name or "reference" in variable.name:
            value = random(*variable.shape, seed=seed)
            variable.assign(0.5 + tf.abs(value) if "variance" in variable.name else value)
    return rule, inputs


def flat(x):
    return tf.reshape(x, [x.shape[0], -1, x.shape[-1]])


def queries_keys_values(rule, inputs):
    pixels = tf.split(rule.pixel_qkv(flat(inputs.pixels)), rule.depths, axis=-1)
    return pixels, tf.split(rule.center_qkv(inputs.centers), rule.depths, axis=-1)


@pytest.mark.parametrize("training", [False, True])
def test_a_new_layer_is_the_identity_up_to_its_activation(training):
    layer = DecoderLayer(SETTINGS, None, NORMALIZATION)
    pixels, centers = random(2, 4, 5, 6), random(2, 3, 8)
    for _ in range(2):
        output = layer(pixels, centers, random(2, 2, 3, 3), training=training)
        np.testing.assert_allclose(output.pixels, pixels, atol=1e-6)
        # The activation is applied after the update and after the feed-forward network.
        expected = layer.activate(layer.activate(centers))
        np.testing.assert_allclose(output.centers, expected, atol=1e-6)


def test_assignment_is_a_softmax_over_centers_of_the_affinity():
    rule, inputs = rule_and_inputs()
    (query, _, _), (_, key, _) = queries_keys_values(rule, inputs)
    affinity = rule.affinity_norm(tf.matmul(query, key, transpose_b=True)[..., tf.newaxis])[..., 0]
    output = rule(inputs)
    np.testing.assert_allclose(flat(output.assignment_logits), affinity, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(flat(output.assignment), tf.nn.softmax(affinity), atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(output.assignment, -1), np.ones([2, 4, 5]), atol=1e-5)


def test_a_scale_of_zero_assigns_every_pixel_to_all_centers_alike():
    rule, inputs = rule_and_inputs()
    rule.affinity_norm.gamma.assign([0.0])
    for training in (False, True):
        np.testing.assert_allclose(rule(inputs, training=training).assignment, np.full([2, 4, 5, 3], 1 / 3), atol=1e-6)


def test_logits_of_the_layer_before_are_added_across_strides():
    previous = random(2, 2, 3, 3)
    rule, inputs = rule_and_inputs(previous)
    with_residual = rule(inputs).assignment_logits
    without = rule(inputs._replace(previous_logits=None)).assignment_logits
    np.testing.assert_allclose(with_residual - without, resize_bilinear(previous, [4, 5]), atol=1e-4)
    rule.settings = dataclasses.replace(rule.settings, residual_assignment=False)
    np.testing.assert_allclose(rule(inputs).assignment_logits, without, atol=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_centers_gather_the_values_of_their_pixels(reduction):
    rule, inputs = rule_and_inputs(cluster_reduction=reduction)
    output = rule(inputs)
    z = flat(output.assignment).numpy()
    (_, _, values), _ = queries_keys_values(rule, inputs)
    gathered = np.einsum("bpn,bpd->bnd", z, values)
    if reduction == "mean":
        gathered /= z.sum(1)[..., np.newaxis]
    expected = rule.soft_cluster_projection(rule.soft_cluster_norm(gathered))
    np.testing.assert_allclose(output.center_updates[0], expected, rtol=1e-3, atol=1e-4)


def test_attention_of_max_deeplab_stays_beside_the_clustering_term():
    rule, inputs = rule_and_inputs()
    (_, pixel_key, pixel_value), (query, key, value) = queries_keys_values(rule, inputs)
    both = [tf.concat(parts, 1) for parts in ((pixel_key, key), (pixel_value, value))]
    np.testing.assert_allclose(rule(inputs).center_updates[1], rule.center_attention(query, *both)[0], atol=1e-5)
    rule.settings = dataclasses.replace(rule.settings, spatial_attention=False)
    among_centers = rule.center_attention(query, key, value)[0]
    np.testing.assert_allclose(rule(inputs).center_updates[1], among_centers, atol=1e-5)


def test_pixels_gather_from_their_clusters_with_coordinates():
    rule, inputs = rule_and_inputs()
    output = rule(inputs)
    _, (_, _, values) = queries_keys_values(rule, inputs)
    update = rule.pixel_update
    hidden = direct_coordinate_convolution(update.coordinate_conv, output.assignment, values, output.reference_boxes)
    expected = update.projection(update.activate(update.value_norm(hidden)))
    np.testing.assert_allclose(flat(output.pixel_update), expected, rtol=1e-3, atol=1e-3)


def test_pixels_gather_from_their_clusters_without_coordinates():
    rule, inputs = rule_and_inputs(location_sensitive=False)
    output = rule(inputs)
    _, (_, _, values) = queries_keys_values(rule, inputs)
    update = rule.pixel_update
    expected = update.projection(update.activate(update.value_norm(tf.matmul(flat(output.assignment), values))))
    np.testing.assert_allclose(flat(output.pixel_update), expected, rtol=1e-3, atol=1e-4)
    assert output.reference_boxes is None


def direct_coordinate_convolution(layer, assignment, values, boxes):
    """The convolution by its definition: all features of all pixels side by side, times the kernel."""
    batch, height, width, _ = assignment.shape
    z = flat(assignment)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    grid = np.broadcast_to(np.stack([x, y], -1).reshape(1, -1, 2), [batch, height * width, 2]).astype(np.float32)
    rho = tf.matmul(z, boxes)
    features = tf.concat([tf.matmul(z, values), rho, grid, grid - (2.0 * rho[..., :2] - 1.0)], -1)
    return tf.matmul(features, layer.kernel[0])


def test_coordinate_convolution_equals_its_definition_for_any_size():
    layer = CoordinateConvolution(8)
    for height, width in ((1, 1), (3, 2)):
        assignment = tf.nn.softmax(random(2, height, width, 5))
        values, boxes = random(2, 5, 8), tf.sigmoid(random(2, 5, 4))
        actual = layer(assignment, values, boxes)
        if (height, width) != (1, 1):
            np.testing.assert_allclose(
                actual, direct_coordinate_convolution(layer, assignment, values, boxes), rtol=1e-3, atol=1e-4
            )
        assert np.isfinite(actual).all()


def test_reference_masks_are_gaussians_in_their_boxes():
    boxes = tf.constant([[[0.5, 0.5, 0.5, 0.5], [0.25, 1.0, 0.5, 0.25]]])
    masks = reference_masks(boxes, tf.zeros([1, 5, 9, 1])).numpy()[0]
    assert masks.shape == (5, 9, 2)
    assert masks[2, 4, 0] == 1.0 and masks[4, 2, 1] == 1.0
    # Half a side away from the center, the exponent is -1/2.
    for value in (masks[2, 6, 0], masks[2, 2, 0], masks[3, 4, 0], masks[4, 4, 1]):
        np.testing.assert_allclose(value, np.exp(-0.5), rtol=1e-5)


def test_new_reference_boxes_are_half_the_image_in_its_middle():
    rule = CmtClustering(SETTINGS, 6, NORMALIZATION)
    centers = random(2, 3, 8)
    boxes = rule(RuleInput(random(2, 4, 5, 8), centers, centers)).reference_boxes
    np.testing.assert_allclose(boxes, np.full([2, 3, 4], 0.5))


def test_reference_masks_can_weigh_the_assignment_and_are_not_handed_on():
    rule, inputs = rule_and_inputs(reference_mask_bias=True)
    rule.reference_bias.assign(0.7)
    output = rule(inputs)
    masks = reference_masks(output.reference_boxes, inputs.pixels)
    expected = tf.nn.softmax(output.assignment_logits + 0.7 * tf.math.log(masks + 1e-30))
    np.testing.assert_allclose(output.assignment, expected, atol=1e-4)
    rule.settings = dataclasses.replace(rule.settings, reference_mask_bias=False)
    np.testing.assert_allclose(rule(inputs).assignment_logits, output.assignment_logits, atol=1e-5)


@pytest.mark.parametrize("branch", ["centers", "pixels"])
def test_gradient_flows_through_the_soft_assignment(branch):
    rule, inputs = rule_and_inputs()
    with tf.GradientTape() as tape:
        output = rule(inputs, training=True)
        update = output.center_updates[0] if branch == "centers" else output.pixel_update
        loss = tf.reduce_sum(tf.sin(update))
    gradients = tape.gradient(loss, [rule.affinity_norm.gamma, rule.pixel_qkv.kernel, rule.reference_boxes.kernel])
    assert all(np.abs(gradient).max() > 1e-7 for gradient in gradients[:2])
    assert (gradients[2] is not None) == (branch == "pixels")


def test_each_branch_is_dropped_by_itself():
    layer = DecoderLayer(dataclasses.replace(SETTINGS, keep_prob=0.5, activation="relu"), None, NORMALIZATION)
    pixels, centers = tf.zeros([200, 1, 1, 6]), tf.zeros([200, 3, 8])
    output = layer(pixels, centers)
    update = layer.rule(RuleInput(tf.zeros([200, 1, 1, 8]), centers, centers))._replace(
        center_updates=(tf.ones_like(centers), 10.0 * tf.ones_like(centers)), pixel_update=tf.ones_like(pixels)
    )
    layer.rule.call = lambda inputs, training: update
    output = layer(pixels, centers, training=True)
    seen = {(int(c), int(p)) for c, p in zip(output.centers[:, 0, 0], output.pixels[:, 0, 0, 0])}
    assert seen == {(c, p) for c in (0, 2, 20, 22) for p in (0, 2)}
