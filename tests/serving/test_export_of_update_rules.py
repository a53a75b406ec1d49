"""Every update rule exports, and what is exported is the model, at any batch size. k-means: test_saved_model.py."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints import save_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config import load_config
from deeplab2_kmax.model import build_model
from deeplab2_kmax.postprocessing import build_postprocessor, undo_resize
from deeplab2_kmax.serving import export

SURE_OF_NOTHING = (
    "trainer_options.solver_options.batchnorm_momentum=0",
    "evaluator_options.pixel_confidence_threshold=0.1",
    "evaluator_options.thing_area_limit=0",
    "evaluator_options.stuff_area_limit=0",
    "evaluator_options.maskwise_postprocessing.transformer_class_confidence_threshold_thing=0",
    "evaluator_options.maskwise_postprocessing.transformer_class_confidence_threshold_stuff=0",
    "evaluator_options.maskwise_postprocessing.overlapping_threshold=0",
)
# Random weights claim every pixel for one center; these make several segments.
LOUDER = {"transformer_class_head/_conv/kernel": 10.0, "pixel_space_mask_batch_norm/gamma": 5.0}


def pictures(size):
    """[size, 65, 65, 3] uint8, smooth."""
    noise = np.random.RandomState(3).randint(0, 256, (size, 4, 5, 3)).astype(np.float32)
    return tf.cast(tf.image.resize(noise, (65, 65)), tf.uint8)


@pytest.mark.parametrize("rule", ["max", "cmt"])
def test_saved_model_equals_the_model(rule, configs, tiny_overrides, golden_value, tmp_path):
    config = load_config(str(configs / "shapes" / f"{rule}_tiny.textproto"), [*tiny_overrides, *SURE_OF_NOTHING])
    assert config.model_options.max_deeplab.transformer_decoder.update_rule == rule
    model = build_model(config)
    for key, variable in checkpoint_variables(model).items():
        variable.assign(LOUDER.get(key, 1.0) * golden_value(key, variable.shape))
    model(tf.cast(pictures(3), tf.float32), training=True)  # sets the statistics of all batch norms
    export(config, save_checkpoint(model, str(tmp_path / "ckpt")), str(tmp_path / "model"))
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    network = tf.function(lambda images: model(images, training=False), autograph=False)
    for batch in (1, 3):
        images = pictures(batch)
        maps = build_postprocessor(config)(network(tf.cast(images, tf.float32)))
        expected = undo_resize(maps, tf.constant([65, 65]), tf.constant([65, 65]))
        served = serve(input_tensor=images)
        assert len(np.unique(expected["panoptic_pred"])) > 2
        for name, values in served.items():
            assert values.shape == expected[name].shape
            assert np.mean(np.abs(values.numpy() - expected[name].numpy()) < 1e-3) > 0.99, (name, batch)
