"""MaX-DeepLab's skeleton goes the same way out: what is exported is what was evaluated, pixel-wise merging included."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints import save_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.model import build_model
from deeplab2_kmax.postprocessing import build_postprocessor
from deeplab2_kmax.serving import Predictor, export

# Random weights are sure of nothing: without these limits every map would be void.
SURE_OF_NOTHING = (
    "evaluator_options.transformer_class_confidence_threshold=0",
    "evaluator_options.pixel_confidence_threshold=0.1",
    "evaluator_options.thing_area_limit=0",
    "evaluator_options.stuff_area_limit=0",
)
TOLERANCES = {
    "panoptic_pred": 0,
    "instance_pred": 0,
    "semantic_pred": 0,
    "instance_scores": 1e-3,
    "semantic_scores": 1e-3,
}


def pictures(batch):
    noise = np.random.RandomState(5).randint(0, 256, (batch, 4, 5, 3)).astype(np.float32)
    return tf.cast(tf.image.resize(noise, (65, 65)), tf.uint8)


@pytest.fixture(scope="module")
def config(tiny_max_config):
    return tiny_max_config("trainer_options.solver_options.batchnorm_momentum=0", *SURE_OF_NOTHING)


@pytest.fixture(scope="module")
def model(config, golden_value):
    network = build_model(config)
    louder = {"transformer_class_head/_conv/kernel": 10.0, "pixel_space_mask_batch_norm/gamma": 10.0}
    for key, variable in checkpoint_variables(network).items():
        variable.assign(louder.get(key, 1.0) * golden_value(key, variable.shape))
    # With a momentum of zero, one step in training mode sets the statistics of all batch norms.
    network(tf.cast(pictures(3), tf.float32), training=True)
    return network


@pytest.fixture(scope="module")
def exported(config, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("max")
    return export(config, save_checkpoint(model, str(folder / "ckpt-1")), folder / "export")


@pytest.fixture(scope="module")
def serve(exported):
    loaded = tf.saved_model.load(exported)
    return lambda images: loaded.signatures["serving_default"](input_tensor=images)


@pytest.mark.parametrize("batch", [1, 3])
def test_exported_model_equals_the_model(batch, config, model, serve):
    images = pictures(batch)
    expected = build_postprocessor(config)(model(tf.cast(images, tf.float32), training=False))
    assert len(np.unique(expected["panoptic_pred"])) > 2
    maps = serve(images)
    for name, tolerance in TOLERANCES.items():
        assert maps[name].shape == [batch, 65, 65]
        # Some pixels lie between two segments; graphs and single operations round differently.
        differences = np.abs(maps[name].numpy() - expected[name].numpy())
        assert np.mean(differences <= tolerance) > 0.99, name


def test_predictor_takes_the_export(exported):
    result = Predictor.from_saved_model(exported)(pictures(1)[0].numpy())
    assert result.panoptic_map.shape == (65, 65) and result.segments
