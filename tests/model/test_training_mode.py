"""The model in training mode and its losses equal DeepLab2's, up to DeepLab2's own run-to-run spread."""

import numpy as np
import tensorflow as tf

from deeplab2_kmax.checkpoints import load_checkpoint
from deeplab2_kmax.config import load_config
from deeplab2_kmax.losses import build_loss
from deeplab2_kmax.model import build_model

OVERRIDES = (
    "train_dataset_options.crop_size=129,161",
    "train_dataset_options.min_resize_value=",
    "train_dataset_options.max_resize_value=",
    "model_options.backbone.drop_path_keep_prob=1",
    "model_options.max_deeplab.transformer_decoder_drop_path_keep_prob=1",
    "model_options.max_deeplab.instance_discrimination_sample_k=0",
)


def test_losses_in_training_mode(configs, golden, golden_checkpoint):
    config = load_config(str(configs / "coco" / "kmax_r50.textproto"), OVERRIDES)
    model = build_model(config)
    load_checkpoint(model, golden_checkpoint("kmax_r50_coco"))
    case = np.load(golden / "train_mode_kmax_r50_coco.npz")
    targets = {name: tf.constant(case[name]) for name in case.files if "/" not in name and name != "image"}
    loss = build_loss(config)

    @tf.function(autograph=False)
    def losses(images):
        return loss(targets, model(images, training=True))

    terms = losses(tf.constant(case["image"].astype(np.float32)))
    expected = {name[len("loss/") :]: case[name] for name in case.files if name.startswith("loss/")}
    assert set(terms) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name].numpy(), value, rtol=0.01, err_msg=name)


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
