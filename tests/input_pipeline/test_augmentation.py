"""Training crops equal resize, pad, crop and flip done one after the other; what is drawn."""

import types

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.input_pipeline.augmentation import Window, cut_crop, draw_window, pad_crop
from deeplab2_kmax.input_pipeline.resizing import resize_align_corners
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from helpers.pipeline_records import labels, options, pixels

CROP = (17, 21)
VOID = 0


def step_by_step(image, label, window):
    """The crop as DeepLab2 makes it."""
    origin = window.origin.numpy()
    label = label[..., None]
    for size in (window.fitted_size, window.scaled_size):
        image, label = resize_align_corners(image, size), resize_align_corners(label, size, "nearest")
    size, image, label = size.numpy(), image.numpy(), label.numpy()[..., 0]
    before = np.maximum(-origin, 0)
    after = np.maximum(np.array(CROP) - size - before, 0)
    around = list(zip(before, after))
    image = np.pad(image, [*around, (0, 0)], constant_values=127.5)
    label = np.pad(label, around, constant_values=VOID)
    y, x = np.maximum(origin, 0)
    image, label = image[y : y + CROP[0], x : x + CROP[1]], label[y : y + CROP[0], x : x + CROP[1]]
    return (image[:, ::-1], label[:, ::-1]) if window.flip else (image, label)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("fitted", [(12, 16), (17, 19)])
@pytest.mark.parametrize(
    ("scaled", "origin"),
    [
        ((12, 16), (0, 0)),  # smaller than the crop, nothing resampled
        ((12, 16), (-4, -3)),
        ((40, 64), (0, 0)),  # larger: each corner, and the middle
        ((40, 64), (23, 43)),
        ((40, 64), (7, 20)),
        ((8, 40), (-5, 11)),  # padded above and below only
        ((17, 21), (0, 0)),  # exactly the crop
        ((1, 1), (-2, -9)),
    ],
)
def test_equals_the_steps(fitted, scaled, origin, flip):
    image, label = tf.constant(pixels(12, 16)), tf.constant(labels(12, 16))
    window = Window(*map(tf.constant, (fitted, scaled, origin, flip)))
    expected_image, expected_label = step_by_step(image, label, window)
    crop, crop_label = pad_crop(cut_crop(image, label, window, CROP), CROP, VOID)
    assert crop.dtype == tf.float32 and crop.shape == (*CROP, 3)
    np.testing.assert_array_equal(crop, expected_image)
    np.testing.assert_array_equal(crop_label, expected_label)


@pytest.mark.parametrize("sizes", [(7, 4), (33, 100), (641, 480), (1000, 641), (12, 1)])
def test_labels_are_looked_up_where_tensorflow_resizes_them(sizes):
    """Ties between pixels and rounding, along a line of numbered pixels."""
    line = tf.range(sizes[0])[:, None, None]
    image = tf.zeros([sizes[0], 1, 3], tf.uint8)
    for length in (*range(1, 60), 513, 1025, 1281):
        window = Window(*map(tf.constant, ([sizes[1], 1], [length, 1], [0, 0], False)))
        expected = line
        for size in (sizes[1], length):
            expected = resize_align_corners(expected, [size, 1], "nearest")
        found = cut_crop(image, line[..., 0], window, (length, 1)).label
        np.testing.assert_array_equal(found, expected[..., 0], err_msg=str(length))


def windows(count, size=(12, 16), **fields):
    settings = PipelineSettings.from_options(options("x", **fields), is_training=True)
    draw = tf.function(
        lambda index: draw_window(tf.stack([tf.constant(3, tf.int64), index]), size, settings.scale_range, settings)
    )
    drawn = [draw(tf.constant(i, tf.int64)) for i in range(count)]
    return types.SimpleNamespace(
        scaled=np.array([w.scaled_size for w in drawn]),
        origin=np.array([w.origin for w in drawn]),
        flip=np.array([w.flip for w in drawn]),
    )


def test_positions_cover_exactly_the_allowed_places():
    small = windows(300)
    # 12 x 16 in a crop of 17 x 21: 5 places each, as in DeepLab2, and none at the far edge.
    assert set(small.origin[:, 0]) == set(small.origin[:, 1]) == {0, -1, -2, -3, -4}
    large = windows(300, size=(20, 25))
    assert set(large.origin[:, 0]) == {0, 1, 2, 3}
    assert set(large.origin[:, 1]) == {0, 1, 2, 3, 4}
    assert 0.4 < large.flip.mean() < 0.6


def test_scales_in_steps_and_continuous():
    steps = {"min_scale_factor": 0.5, "max_scale_factor": 2.0, "scale_factor_step_size": 0.5}
    heights = set(windows(100, size=(40, 60), augmentations=steps).scaled[:, 0])
    assert heights == {20, 40, 60, 80}
    # Read as float32 from a config, 0.1 gives 15 factors, 0.1071 apart.
    drawn = windows(300, size=(1000, 1000), augmentations={**steps, "scale_factor_step_size": 0.1}).scaled[:, 0]
    assert sorted(set(drawn)) == pytest.approx([500 + 1500 * i / 14 for i in range(15)], abs=1)
    continuous = windows(100, size=(1000, 1000), augmentations={**steps, "scale_factor_step_size": 0.0}).scaled[:, 0]
    assert len(set(continuous)) > 80 and 500 <= continuous.min() < 700 < 1800 < continuous.max() <= 2000


def test_first_resize_comes_before_the_scale():
    fields = {"min_resize_value": [16], "max_resize_value": [17, 21], "augmentations": {"max_scale_factor": 1.0}}
    # 12 x 16 to at least 16 is 16 x 21, which fits into 17 x 21.
    assert (windows(3, **fields).scaled == [16, 21]).all()
