"""Inference at several scales and with flips: slots are aligned, then masks and classes averaged."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.model.averaged_passes import AveragedPasses, PassSettings, aligned_slots, in_passes, scaled_size
from deeplab2_kmax.model.frozen import FrozenNetwork
from deeplab2_kmax.postprocessing import build_postprocessor
from deeplab2_kmax.serving.inference import InferenceModel

SLOTS, CLASSES = 5, 4


class Permuting(tf.Module):
    """Finds the color k * 40 with a slot of class k % 4, but with another slot at each call."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __call__(self, images, training=False):
        order = np.random.RandomState(len(self.seen)).permutation(SLOTS)
        self.seen.append(tuple(images.shape[1:3]))
        colors = images[:, ::4, ::4, 0]
        masks = 8.0 - tf.abs(colors[..., None] - 40.0 * tf.range(SLOTS, dtype=tf.float32)) / 5.0
        classes = 9.0 * tf.one_hot(np.arange(SLOTS) % CLASSES, CLASSES)[None] + tf.zeros([len(images), 1, 1])
        return {
            "pixel_space_mask_logits": tf.gather(masks, order, axis=3),
            "transformer_class_logits": tf.gather(classes, order, axis=1),
            "semantic_logits": colors[..., None] + float(len(self.seen)),
        }


@pytest.fixture
def images():
    """Vertical bands of the five colors, the last ones only in the upper half of the second image."""
    bands = np.repeat(40.0 * np.arange(SLOTS), 13).astype(np.float32)
    both = np.stack([np.tile(bands, (33, 1))] * 2)
    both[1, 17:, 26:] = 0
    return tf.constant(np.repeat(both[..., None], 3, 3))


def run(network, images, **settings):
    return {name: values.numpy() for name, values in AveragedPasses(network, PassSettings(**settings))(images).items()}


def test_slots_of_all_passes_are_aligned_to_those_of_the_first(images):
    plain = {name: values.numpy() for name, values in Permuting()(images).items()}
    network = Permuting()
    found = run(network, images, scales=(1.0,), mirrored=True)
    # The stand-in has the same masks in the mirror image, so that their mean is the same again.
    for name in ("pixel_space_mask_logits", "transformer_class_logits"):
        expected = plain[name] - tf.reduce_logsumexp(plain[name], -1, keepdims=True)
        np.testing.assert_allclose(found[name], np.maximum(expected, np.log(1e-30)), atol=1e-3)
    np.testing.assert_array_equal(found["semantic_logits"], plain["semantic_logits"])


def test_scales_are_brought_to_the_grid_of_the_one_nearest_to_1(images):
    network = Permuting()
    found = run(network, images, scales=(0.5, 1.0, 1.5), mirrored=True)
    assert network.seen == [(33, 65)] * 2 + [(49, 97)] * 2 + [(17, 33)] * 2
    plain = Permuting()(images)
    assert found["pixel_space_mask_logits"].shape == plain["pixel_space_mask_logits"].shape
    best, expected = (
        np.argmax(each, -1) for each in (found["pixel_space_mask_logits"], plain["pixel_space_mask_logits"])
    )
    assert np.mean(best == expected) > 0.9
    np.testing.assert_array_equal(
        np.argmax(found["transformer_class_logits"], -1), np.argmax(plain["transformer_class_logits"], -1)
    )
    probabilities = np.exp(found["pixel_space_mask_logits"]).sum(-1)
    np.testing.assert_allclose(probabilities, 1.0, atol=1e-4)


def test_the_mean_is_one_of_probabilities():
    logits = iter(([[4.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [1.0, 0.0]]))

    class Network(tf.Module):
        def __call__(self, images, training=False):
            values = tf.constant(next(logits))
            return {"pixel_space_mask_logits": values[None, None], "transformer_class_logits": values[None]}

    found = run(Network(), tf.zeros([1, 1, 2, 3]), scales=(1.0, 1.0))
    # The second pass has the slots the other way round.
    first, second = tf.nn.softmax([[4.0, 0.0], [0.0, 1.0]]), tf.nn.softmax([[2.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(np.exp(found["pixel_space_mask_logits"])[0, 0], (first + second) / 2, atol=1e-6)


def test_alignment_is_by_mask_and_by_class():
    masks = tf.constant([[[[0.6, 0.4, 0.0], [0.4, 0.6, 0.0]]]])
    classes = tf.one_hot([[0, 0, 2]], 3)
    # The masks of the first two change places; the third has no pixel, and takes what is left.
    np.testing.assert_array_equal(aligned_slots(masks, classes, masks[..., ::-1], classes[:, ::-1]), [[2, 1, 0]])
    # Of equal masks, the class decides.
    halves = tf.fill([1, 2, 2, 2], 0.5)
    one, other = tf.one_hot([[0, 1]], 2), tf.one_hot([[1, 0]], 2)
    np.testing.assert_array_equal(aligned_slots(halves, one, halves, other), [[1, 0]])


def test_images_are_scaled_as_deeplab2_scales_them(golden):
    arrays = np.load(golden / "scaled_images.npz")
    for scale in (0.5, 0.75, 1.1, 1.5, 2.0):
        seen = []

        class Network(tf.Module):
            def __call__(self, images, training=False, seen=seen):
                seen.append(images)
                return {}

        run(Network(), tf.constant(arrays["image"]), scales=(scale,))
        assert seen[0].shape == tuple(arrays[f"shape {scale}"]) == (1, *scaled_size(33, 65, scale), 3)
        values = seen[0].numpy().reshape(-1)[::5]
        np.testing.assert_allclose(values, arrays[f"values {scale}"], atol=1e-6)


def test_a_single_scale_keeps_its_own_grid_where_labels_fit_it(images):
    for scale, expected in ((0.5, (5, 9)), (2.0, (17, 33)), (1.5, (9, 17)), (0.7, (9, 17))):
        assert run(Permuting(), images, scales=(scale,))["pixel_space_mask_logits"].shape[1:3] == expected


def test_settings_of_a_config():
    read = [
        PassSettings.from_options(load_config("shapes/kmax_tiny", overrides).evaluator_options)
        for overrides in ([], ["evaluator_options.eval_scales=0.5,1.0", "evaluator_options.add_flipped_images=true"])
    ]
    assert read == [PassSettings(), PassSettings((0.5, 1.0), True)]
    assert [each.is_plain for each in read] == [True, False]
    with pytest.raises(ValueError, match="expected training=False"):
        AveragedPasses(Permuting(), PassSettings((0.5,)))(tf.zeros([1, 9, 9, 3]), training=True)


@pytest.fixture(scope="module")
def mirrored(config):
    changed = type(config)()
    changed.CopyFrom(config)
    changed.evaluator_options.add_flipped_images = True
    changed.evaluator_options.eval_scales.extend([1.0, 0.5])
    return changed


def test_evaluation_and_prediction_run_the_same_passes(mirrored, model, checkpoint, picture):
    """And mirrored pictures have the mirrored classes, more than without such passes."""
    height, width = mirrored.eval_dataset_options.crop_size
    images = tf.image.resize(picture[None], (height, width))
    network = in_passes(model, mirrored.evaluator_options)
    maps = build_postprocessor(mirrored)(network(images))
    predicted = InferenceModel.from_checkpoint(mirrored, checkpoint).maps_of(images)
    assert np.mean(maps["panoptic_pred"] == predicted["panoptic_pred"]) > 0.99
    assert len(np.unique(maps["semantic_pred"])) > 1
    back = build_postprocessor(mirrored)(network(images[:, :, ::-1]))["semantic_pred"][:, :, ::-1]
    one, other = (
        build_postprocessor(mirrored)(model(x, training=False))["semantic_pred"] for x in (images, images[:, :, ::-1])
    )
    agreement = np.mean(maps["semantic_pred"] == back)
    # Of weights that have learned nothing. Seen: 0.87 in place of 0.66.
    assert agreement > 0.1 + np.mean(one == other[:, :, ::-1])


def test_weights_can_be_constants(mirrored, checkpoint):
    from deeplab2_kmax.serving.inference import restored_model

    config, model, _ = restored_model(mirrored, checkpoint)
    images = tf.random.stateless_uniform([2, *config.eval_dataset_options.crop_size, 3], [1, 2], maxval=255.0)
    network = in_passes(model, config.evaluator_options)
    expected, found = network(images), FrozenNetwork(network)(images)
    for name, values in expected.items():
        # Of values up to 30; rounding may move a pixel to another cluster.
        assert np.mean(np.abs(found[name] - values)) < 1e-2


def test_other_runtimes_refuse_several_passes(mirrored):
    pytest.importorskip("onnxruntime")
    from deeplab2_kmax.serving.formats import RUNTIMES
    from deeplab2_kmax.serving.portable import require_portable

    with pytest.raises(ConfigError, match="eval_scales, add_flipped_images: expected a single pass"):
        require_portable(mirrored, RUNTIMES["onnx"])
