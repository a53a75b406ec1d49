"""Sizes equal DeepLab2's to the pixel; interpolation and padding on values worked out by hand."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.input_pipeline.resizing import fitted_size, pad_to, resize_align_corners, resize_for_inference

# (size, min_size, max_size, factor) -> what DeepLab2 computes, at 64bc1c1.
SIZES = [
    ((427, 640), (641, 641), (641, 641), None, (428, 641)),
    ((360, 640), (641, 641), (641, 641), None, (360, 641)),
    ((640, 427), (1281, 1281), (1281, 1281), None, (1281, 854)),
    ((1024, 2048), None, (1025, 2049), None, (1024, 2048)),
    ((1024, 2048), None, (1025, 2049), 32, (1025, 2049)),
    ((500, 333), (641, 641), (641, 641), 32, (641, 449)),
    ((333, 500), (97, 129), None, None, (97, 145)),
    ((3000, 2000), None, (129, 129), 16, (129, 97)),
    ((37, 53), (97, 97), (101, 120), 8, (81, 113)),
    ((480, 640), None, None, 16, (481, 641)),
    ((683, 1024), (512, 512), (2048, 2048), None, (512, 767)),
    ((375, 500), (640, 640), (1333, 1333), None, (640, 853)),
]


@pytest.mark.parametrize(("size", "min_size", "max_size", "factor", "expected"), SIZES)
def test_sizes_equal_deeplab2s(size, min_size, max_size, factor, expected):
    assert tuple(fitted_size(tf.constant(size), min_size, max_size, factor).numpy()) == expected


def test_thin_images_keep_a_pixel():
    assert tuple(fitted_size(tf.constant((4000, 2)), None, (641, 641)).numpy()) == (641, 1)


def test_bilinear_keeps_corner_centers():
    row = tf.constant([0, 10, 30], tf.uint8)[tf.newaxis, :, tf.newaxis]
    resized = resize_align_corners(row, (1, 5))
    assert resized.dtype == tf.float32
    np.testing.assert_allclose(resized[0, :, 0], [0, 5, 10, 20, 30])
    shrunk = resize_align_corners(tf.range(9.0)[tf.newaxis, tf.newaxis, :, tf.newaxis], (1, 3))
    np.testing.assert_allclose(shrunk[0, 0, :, 0], [0, 4, 8])


def test_nearest_takes_the_closest_pixel_and_keeps_ids():
    row = tf.constant([7, 2**30, 300])[tf.newaxis, :, tf.newaxis]
    resized = resize_align_corners(row, (2, 5), "nearest")
    assert resized.dtype == tf.int32
    # Outputs 1 and 3 lie halfway and go to the farther index.
    assert resized[1, :, 0].numpy().tolist() == [7, 2**30, 2**30, 300, 300]


def test_another_rank_or_method_is_refused():
    with pytest.raises(ValueError, match="shape"):
        resize_align_corners(tf.zeros([4, 4]), (2, 2))
    with pytest.raises(ValueError, match="bicubic"):
        resize_align_corners(tf.zeros([4, 4, 3]), (2, 2), "bicubic")


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_inference_in_a_graph_of_unknown_size(dtype):
    prepare = tf.function(
        lambda image: resize_for_inference(image, (9, 13)), input_signature=[tf.TensorSpec([None, None, 3], dtype)]
    )
    image = np.random.RandomState(0).randint(0, 256, (34, 26, 3))
    padded, size = prepare(tf.cast(image, dtype))
    # 34 x 26 shrinks by 9/34 to 9 x 6 to fit the crop, then columns 6..12 are padding.
    assert size.numpy().tolist() == [9, 6]
    assert padded.shape == (9, 13, 3) and padded.dtype == tf.float32
    np.testing.assert_array_equal(padded[:, 6:], np.full((9, 7, 3), 127.5))
    corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(padded.numpy()[[0, 0, 8, 8], [0, 5, 0, 5]], corners, atol=1e-3)
    # Without bounds an image that fits is not enlarged.
    small, size = prepare(tf.cast(image[:5, :7], dtype))
    assert size.numpy().tolist() == [5, 7]
    np.testing.assert_array_equal(small[:5, :7], image[:5, :7])


def test_padding_cannot_crop():
    with pytest.raises(tf.errors.InvalidArgumentError):
        pad_to(tf.zeros([5, 5, 1]), (4, 6), 0)
