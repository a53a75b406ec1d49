"""The fields in which the PyTorch port differs from DeepLab2; tests/checkpoint_conversion has its figures."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.config import ConfigError, load_config
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.pixel_encoders.resnet import ResNet, ResNetSettings

NARROW = {"stem_channels": 4, "stage_filters": (4, 4, 4, 4), "stage_blocks": (1, 1, 1, 1)}


@pytest.fixture
def image():
    return tf.constant(np.random.RandomState(0).uniform(-1, 1, [1, 65, 97, 3]), tf.float32)


def with_same_weights(image, **changes):
    random = np.random.RandomState(1)
    plain, changed = (ResNet(ResNetSettings(**NARROW, **change), Normalization()) for change in ({}, changes))
    plain(image), changed(image)
    weights = [random.normal(0.3, 0.5, weight.shape) for weight in plain.get_weights()]
    for encoder in (plain, changed):
        encoder.set_weights(weights)
        for variable in encoder.non_trainable_variables:
            variable.assign(tf.abs(variable))
    return plain(image), changed(image)


def test_max_pool_takes_the_place_of_the_first_stages_stride(image):
    plain, pooled = with_same_weights(image, stem_max_pool=True)
    windows = tf.image.extract_patches(
        tf.pad(tf.nn.relu(plain["stage1"]), [[0, 0], [1, 1], [1, 1], [0, 0]]),
        [1, 3, 3, 1],
        [1, 2, 2, 1],
        [1, 1, 1, 1],
        "VALID",
    )
    expected = tf.reduce_max(tf.reshape(windows, [1, 17, 25, 9, 4]), 3)
    np.testing.assert_array_equal(pooled["stage1"], expected)
    for name in ("stage2", "stage3", "stage4", "stage5"):
        assert pooled[name].shape == plain[name].shape


def test_activated_features(image):
    plain, activated = with_same_weights(image, activated_features=True)
    for name, feature in plain.items():
        assert tf.reduce_min(feature) < 0, name
        np.testing.assert_array_equal(activated[name], tf.nn.relu(feature))


def test_pixel_decoder_takes_in_the_features_it_is_told(configs, tiny_overrides, image):
    where = "model_options.max_deeplab.pixel_decoder"
    path = str(configs / "shapes" / "kmax_tiny.textproto")
    overrides = [
        *tiny_overrides,
        "model_options.backbone.stem_max_pool=true",
        f"{where}.encoder_features=stage5,stage4,stage3,stage1,stage2",
        f"{where}.filters=8,8,4,2,4",
        f"{where}.num_blocks=1,1,1,1,1",
        f"{where}.block_type=axial,axial,bottleneck,bottleneck,bottleneck",
    ]
    model = build_model(load_config(path, overrides))
    channels = [norm.gamma.shape[0] for norm in model.pixel_decoder.skip_norms]
    assert channels == [32, 32, 16, 8, 16]
    assert model(image * 127.5 + 127.5)["pixel_space_mask_logits"].shape[1:3] == [17, 25]


@pytest.mark.parametrize(
    "override, words",
    [
        ("encoder_features=stage5,stage4,stage3,stage2", "filters: expected 4 values as encoder_features"),
        ("encoder_features=stage5,stage4,stage3,res2", "got 'res2'"),
    ],
)
def test_contradictions_are_named(configs, override, words):
    path = str(configs / "shapes" / "kmax_tiny.textproto")
    with pytest.raises(ConfigError, match=words):
        load_config(path, [f"model_options.max_deeplab.pixel_decoder.{override}"])
