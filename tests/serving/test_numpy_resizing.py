"""Resizing without TensorFlow gives the sizes and pixels that TensorFlow gives."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.input_pipeline import resizing
from deeplab2_kmax.postprocessing import undo_resize
from deeplab2_kmax.serving import numpy_resizing
from deeplab2_kmax.serving.numpy_resizing import InputRule

RULES = [
    {"crop_size": (65, 65)},
    {"crop_size": (97, 129), "min_size": (60, 60), "max_size": (97, 129), "resize_factor": 32},
    {"crop_size": (641, 641), "max_size": (641, 641)},
    {"crop_size": (65, 129), "min_size": (64, 64)},
]
SIZES = [(52, 83), (1, 200), (200, 1), (1, 1), (65, 65), (333, 500), (480, 640), (64, 65), (2, 3)]


def test_the_padding_is_the_same():
    assert numpy_resizing.PADDING_GREY == resizing.PADDING_GREY


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "x".join(map(str, rule["crop_size"])))
def test_pictures_become_the_same_input(rule):
    draws = np.random.default_rng(0)
    for size in SIZES:
        images = draws.integers(0, 256, (2, *size, 3)).astype(np.uint8)
        rest = [rule.get(name) for name in ("min_size", "max_size", "resize_factor")]
        fitted = resizing.fitted_size(size, rest[0], rest[1] or rule["crop_size"], rest[2]).numpy()
        if (fitted > rule["crop_size"]).any():
            continue  # Refused in training, too: the crop is too small.
        expected, expected_size = resizing.resize_for_inference(tf.constant(images), rule["crop_size"], *rest)
        got, got_size = InputRule(**rule).prepare(images)
        assert got_size == tuple(expected_size.numpy())
        assert got.dtype == np.float32 and got.shape == expected.shape
        assert np.abs(got - expected.numpy()).max() < 255e-3 * 1e-1


def test_fitted_sizes_agree_to_the_pixel():
    draws = np.random.default_rng(1)
    for size in draws.integers(1, 2000, (300, 2)).tolist():
        for bounds in (((513, 513), (641, 641), 32), (None, (641, 641), 0), ((800, 800), (1333, 1333), 0)):
            expected = resizing.fitted_size(size, *bounds).numpy()
            assert numpy_resizing.fitted_size(tuple(size), *bounds) == tuple(expected), (size, bounds)


def test_maps_come_back_to_the_same_pixels():
    draws = np.random.default_rng(2)
    for raw in SIZES:
        for resized in ((65, 41), (1, 65), (64, 1), (33, 65)):
            values = draws.integers(0, 9999, (2, 65, 65)).astype(np.int32)
            expected = undo_resize({"panoptic_pred": tf.constant(values)}, resized, raw)["panoptic_pred"]
            np.testing.assert_array_equal(numpy_resizing.undo_resize(values, resized, raw), expected)


def test_the_rule_is_read_from_what_an_export_says():
    facts = {"crop_size": [65, 65], "min_size": None, "max_size": [65, 65], "resize_factor": 32, "name": "images"}
    assert InputRule.from_facts(facts) == InputRule((65, 65), None, (65, 65), 32)
    with pytest.raises(KeyError):
        InputRule.from_facts({"crop_size": [65, 65]})
