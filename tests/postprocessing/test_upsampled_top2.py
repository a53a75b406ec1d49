"""The two strongest slots of each pixel, against a softmax over all slots of the enlarged logits."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2 import PixelPeaks, log_sums, two_strongest_slots
from deeplab2_kmax.postprocessing.upsampled_top2.peaks import pairs

SLOTS = 7
SIZES = {"whole stride": ((5, 6), (17, 21)), "no whole stride": ((5, 6), (18, 20))}


def smooth_logits(shape, seed=0):
    """Two images with noise over a few smooth hills, whose borders are soft: second slots matter there."""
    rng = np.random.default_rng(seed)
    rows, columns = (axis[..., None] / axis.max() for axis in np.mgrid[: shape[0], : shape[1]])
    tops = rng.random((2, 2, 1, 1, SLOTS))
    hills = 6 * np.exp(-8 * ((rows - tops[0]) ** 2 + (columns - tops[1]) ** 2))
    return (hills + rng.normal(0, 0.3, (2, *shape, SLOTS))).astype(np.float32)


def plain_probabilities(logits, size):
    return tf.nn.softmax(tf.compat.v1.image.resize_bilinear(logits, size, align_corners=True)).numpy()


@pytest.mark.parametrize(("shape", "size"), SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("threshold", [0.34, 0.45, 0.6])
def test_peaks_are_those_of_the_enlarged_logits(shape, size, threshold):
    logits = smooth_logits(shape)
    probabilities = plain_probabilities(logits, size)
    order = np.argsort(-probabilities, axis=-1)
    first, second = order[..., 0], order[..., 1]
    score, second_score = np.moveaxis(-np.sort(-probabilities, axis=-1), -1, 0)[:2]
    none = np.where(score > threshold, SLOTS, SLOTS + 1)
    expected = first * (SLOTS + 2) + np.where(second_score > threshold, second, none)
    peaks = two_strongest_slots(tf.constant(logits), size, threshold)
    np.testing.assert_array_equal(peaks.pair, expected)
    np.testing.assert_allclose(peaks.score, score, atol=1e-5)
    assert np.any(second_score > threshold) == (threshold < 0.5)

    on_grid = plain_probabilities(logits, shape)
    np.testing.assert_array_equal(peaks.grid.first, on_grid.argmax(-1))
    np.testing.assert_allclose(peaks.grid.score, on_grid.max(-1), atol=1e-5)


def test_logits_of_a_single_row_can_be_enlarged():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (1, 1, 6, SLOTS)).astype(np.float32)
    peaks = two_strongest_slots(tf.constant(logits), (1, 21), 0.6)
    probabilities = plain_probabilities(logits, (1, 21))
    np.testing.assert_array_equal(peaks.pair // (SLOTS + 2), probabilities.argmax(-1))
    np.testing.assert_allclose(peaks.score, probabilities.max(-1), atol=1e-5)


def test_a_slot_counts_only_above_the_threshold_not_at_it():
    first, second = tf.constant([0, 0, 0]), tf.constant([1, 1, 1])
    score, second_score = tf.constant([0.5, 0.5, 0.25]), tf.constant([0.3, 0.25, 0.25])
    peaks = PixelPeaks(first, score, second, second_score)
    np.testing.assert_array_equal(pairs(peaks, 0.25, SLOTS), [1, SLOTS, SLOTS + 1])


def test_second_slots_can_be_left_out():
    shape, size = SIZES["whole stride"]
    logits = tf.constant(smooth_logits(shape))
    with_seconds, without = (two_strongest_slots(logits, size, 0.34, seconds) for seconds in (True, False))
    np.testing.assert_array_equal(without.pair // (SLOTS + 2), with_seconds.pair // (SLOTS + 2))
    np.testing.assert_allclose(without.score, with_seconds.score, atol=1e-5)
    assert np.all(without.pair % (SLOTS + 2) >= SLOTS)


def test_log_sums_are_the_denominators_of_the_softmax():
    shape, size = SIZES["no whole stride"]
    logits = smooth_logits(shape)
    enlarged = tf.compat.v1.image.resize_bilinear(logits, size, align_corners=True)
    np.testing.assert_allclose(log_sums(tf.constant(logits), size), tf.reduce_logsumexp(enlarged, -1), atol=1e-5)
