"""The model in training mode and its losses equal DeepLab2's."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints import load_checkpoint
from deeplab2_kmax.config import load_config
from deeplab2_kmax.losses import build_loss
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.layers import normalization

OVERRIDES = (
    "train_dataset_options.crop_size=129,161",
    "train_dataset_options.min_resize_value=",
    "train_dataset_options.max_resize_value=",
    "model_options.backbone.drop_path_keep_prob=1",
    "model_options.max_deeplab.transformer_decoder_drop_path_keep_prob=1",
    "model_options.max_deeplab.instance_discrimination_sample_k=0",
)


@pytest.fixture(scope="module")
def golden_step(configs, golden, golden_checkpoint):
    """(outputs, loss terms, golden case) of kMaX-R50 with golden weights in training mode.

    k-means decides by argmax, so different rounding would send pixels to other clusters. Batch norms are therefore made
    to use the formula, which rounds as DeepLab2 does. tests/model/layers/test_layers.py shows that the fused kernels,
    which are used otherwise, compute the same.
    """
    config = load_config(str(configs / "coco" / "kmax_r50.textproto"), OVERRIDES)
    model = build_model(config)
    load_checkpoint(model, golden_checkpoint("kmax_r50_coco"))
    case = np.load(golden / "train_mode_kmax_r50_coco.npz")
    targets = {name: tf.constant(case[name]) for name in case.files if "/" not in name and name != "image"}
    loss = build_loss(config)

    @tf.function(autograph=False)
    def step(images):
        outputs = model(images, training=True)
        return outputs, loss(targets, outputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normalization, "FUSED_DTYPES", ())
        return *step(tf.constant(case["image"].astype(np.float32))), case


def test_outputs(golden_step, golden):
    """Every 101st value of every output, final and auxiliary, of DeepLab2 run on the same weights and images.

    k-means decides by argmax: rounding differences grow from layer to layer, to 2e-3 where this was recorded.
    """
    outputs, _, _ = golden_step
    actual = {
        name: value for name, value in outputs.items() if name not in ("semantic_logits", "auxiliary_outputs_pred")
    }
    for layer, prediction in enumerate(outputs["auxiliary_outputs_pred"]):
        actual.update({f"auxiliary{layer}/{name}": value for name, value in prediction.items()})
    expected = np.load(golden / "train_mode_outputs_kmax_r50_coco.npz")
    assert set(actual) == set(expected.files)
    for name in expected.files:
        sampled = actual[name].numpy().reshape(-1)[::101]
        np.testing.assert_allclose(sampled, expected[name], atol=1e-2 * np.abs(expected[name]).max(), err_msg=name)


def test_losses(golden_step):
    """The golden loss terms, where they are well defined.

    With these weights all slots look alike, and DeepLab2 rounds matching costs to 2^-14, so its matching is decided by
    rounding: DeepLab2's own terms that depend on it differ by up to 25 % from the golden ones on another machine. Their
    sum hardly changes. The terms themselves are tested on given predictions in tests/losses.
    """
    _, terms, case = golden_step
    assert set(terms) == {name[len("loss/") :] for name in case.files if name.startswith("loss/")}
    for name, value in terms.items():
        if "instance_discrimination" in name or name in ("semantic_loss", "total_loss"):
            np.testing.assert_allclose(value, case[f"loss/{name}"], rtol=0.01, err_msg=name)


def test_training_outputs_have_one_auxiliary_prediction_a_layer(tiny_config):
    model = build_model(tiny_config)
    outputs = model(tf.zeros([2, 65, 65, 3]), training=True)
    auxiliary = outputs["auxiliary_outputs_pred"]
    assert len(auxiliary) == sum(tiny_config.model_options.max_deeplab.transformer_decoder.num_blocks)
    for prediction in auxiliary:
        for name, value in prediction.items():
            assert value.shape == outputs[name].shape, name


def test_moving_statistics_follow_the_batch(tiny_config):
    model = build_model(tiny_config)
    norm = model.pixel_encoder.stem.norm
    before = norm.moving_mean.numpy()
    images = tf.random.stateless_uniform([2, 65, 65, 3], [1, 2], 0, 255)
    model(images, training=False)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), before)
    model(images, training=True)
    raw = tf.nn.conv2d(images / 127.5 - 1.0, model.pixel_encoder.stem.kernel, 2, [[0, 0], [3, 3], [3, 3], [0, 0]])
    momentum = tiny_config.trainer_options.solver_options.batchnorm_momentum
    expected = (1 - momentum) * tf.reduce_mean(raw, [0, 1, 2]).numpy()
    np.testing.assert_allclose(norm.moving_mean.numpy(), expected, rtol=1e-4, atol=1e-6)
    variance = momentum + (1 - momentum) * tf.math.reduce_variance(raw, [0, 1, 2]).numpy()
    np.testing.assert_allclose(norm.moving_variance.numpy(), variance, rtol=1e-4)
