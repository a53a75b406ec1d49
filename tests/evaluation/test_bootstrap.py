"""The paired bootstrap against SciPy's, and where it has to say that nothing is shown."""

import numpy as np
import pytest
from scipy import stats

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.bootstrap import Difference, PairedBootstrap

IMAGES, CLASSES = 60, 3


def states(seed, quality):
    """States of images in which each class has about two true segments, matched with this probability."""
    random = np.random.default_rng(seed)
    true = random.integers(1, 4, (IMAGES, CLASSES))
    tp = random.binomial(true, quality)
    return np.stack([tp * random.uniform(0.6, 1.0, tp.shape), tp, random.poisson(0.5, tp.shape), true - tp], 1)


def pq(sums):
    """PQ of sums [..., 4]."""
    iou, tp, fp, fn = np.moveaxis(sums, -1, 0)
    return iou / (tp + fp / 2 + fn / 2)


def test_the_interval_is_that_of_scipy_and_of_a_ratio_of_sums():
    first, second = states(0, 0.6), states(1, 0.7)

    def difference(index, axis):
        # SciPy gives [draws, images]; classes in a loop, as a plain reading of the definition.
        per_class = [pq(second[index, :, c].sum(axis)) - pq(first[index, :, c].sum(axis)) for c in range(CLASSES)]
        return np.mean(per_class, 0)

    expected = stats.bootstrap(
        (np.arange(IMAGES),),
        lambda index, axis=-1: difference(index, index.ndim - 1 if axis == -1 else axis),
        n_resamples=4000,
        method="percentile",
        vectorized=True,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    found = PairedBootstrap(first, second, draws=4000).of_mean()
    assert found.value == pytest.approx(np.mean(pq(second.sum(0).T) - pq(first.sum(0).T)))
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.high, abs=0.05 * width)
    # A mean over the qualities of images would be another figure.
    of_images = np.nanmean(pq(np.moveaxis(second, 1, -1)) - pq(np.moveaxis(first, 1, -1)))
    assert abs(of_images - found.value) > 1e-3


def test_sides_that_are_equal_show_no_difference_and_a_large_one_is_shown():
    same = states(0, 0.6)
    assert PairedBootstrap(same, same).of_mean() == Difference(0.0, 0.0, 0.0)
    assert not PairedBootstrap(same, same).of_mean().is_shown
    better = PairedBootstrap(states(0, 0.3), states(0, 0.9))
    assert better.of_mean().is_shown and better.of_mean().low > 0
    worse = PairedBootstrap(states(0, 0.9), states(0, 0.3))
    assert worse.of_mean().is_shown and worse.of_mean().high < 0


def test_pairs_count_so_that_images_which_are_hard_for_both_do_not_widen_the_interval():
    first = states(0, 0.5)
    second = first.copy()
    second[:, 0] *= 1.02  # Each match a little better: a small difference, the same in all images.
    paired = PairedBootstrap(first, second).of_mean()
    shuffled = PairedBootstrap(first, second[np.random.default_rng(0).permutation(IMAGES)]).of_mean()
    assert paired.value == pytest.approx(shuffled.value)
    assert paired.is_shown and not shuffled.is_shown


def test_a_class_that_one_side_lacks_has_no_difference_and_counts_in_the_mean_of_the_other():
    first, second = states(0, 0.6), states(1, 0.6)
    first[:, :, 2] = 0
    found = PairedBootstrap(first, second)
    assert np.isnan(found.of_classes()[2].value) and not found.of_classes()[2].is_shown
    of_first, of_second = (pq(each.sum(0).T[: 2 + number]) for number, each in enumerate((first, second)))
    assert found.of_mean().value == pytest.approx(of_second.mean() - of_first.mean())
    assert found.of_mean(chosen=[True, True, False]).value == pytest.approx((of_second[:2] - of_first).mean())
    assert found.of_mean("rq", [False] * 3).value == 0


def test_sides_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="same images"):
        PairedBootstrap(states(0, 0.5), states(0, 0.5)[1:])
    with pytest.raises(DataError, match="same images"):
        PairedBootstrap(np.zeros((0, 4, 3)), np.zeros((0, 4, 3)))
    with pytest.raises(ValueError, match="pq, sq, rq"):
        PairedBootstrap(states(0, 0.5), states(0, 0.5)).of_mean("iou")
