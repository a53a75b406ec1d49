"""Post-processing against maps that DeepLab2 made from the same logits."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.postprocessing import build_postprocessor
from deeplab2_kmax.protos import config_pb2

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
LOGITS = ("pixel_space_mask_logits", "transformer_class_logits")


def maskwise_config(size=(129, 161), thing_area_limit=400, stuff_area_limit=6400):
    config = config_pb2.ExperimentOptions()
    config.eval_dataset_options.dataset = "coco_panoptic"
    config.eval_dataset_options.crop_size[:] = size
    options = config.evaluator_options
    options.thing_area_limit, options.stuff_area_limit = thing_area_limit, stuff_area_limit
    options.transformer_post_processing = "maskwise"
    options.maskwise_postprocessing.transformer_class_confidence_threshold_stuff = 0.5
    options.maskwise_postprocessing.overlapping_threshold = 0.8
    options.maskwise_postprocessing.reorder_mask_weight = 1.0
    return config


def pixelwise_config(size=(129, 161)):
    config = maskwise_config(size, 100, 1600)
    config.evaluator_options.ClearField("maskwise_postprocessing")
    config.evaluator_options.transformer_post_processing = "pixelwise"
    return config


def assert_maps_equal(maps, expected):
    for name in ("panoptic_pred", "instance_pred", "semantic_pred"):
        assert maps[name].dtype == tf.int32
        np.testing.assert_array_less(0.999, np.mean(maps[name] == expected[name]), err_msg=name)
    for name in ("instance_scores", "semantic_scores"):
        np.testing.assert_allclose(maps[name], expected[name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("post_maskwise_coco", maskwise_config(thing_area_limit=60, stuff_area_limit=300)),
        ("post_pixelwise_coco", pixelwise_config()),
    ],
)
def test_equals_deeplab2(file, config):
    golden = np.load(GOLDEN / f"{file}.npz")
    expected = {name[4:]: golden[name] for name in golden.files if name.startswith("out/")}
    assert len(np.unique(expected["panoptic_pred"])) > 5
    maps = build_postprocessor(config)({name: golden[name] for name in LOGITS})
    assert_maps_equal(maps, expected)
