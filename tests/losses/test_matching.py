"""Matching: optimal on both backends, and defined for every input."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.losses.matching import match

compiled = tf.function(lambda costs, exists: match(costs, exists, "xla"), jit_compile=True)
MATCHERS = {"host": lambda c, e: match(c, e, "host"), "xla": lambda c, e: match(c, e, "xla"), "compiled": compiled}


@pytest.fixture(params=MATCHERS)
def matcher(request):
    return lambda costs, exists: MATCHERS[request.param](tf.constant(costs, tf.float32), tf.constant(exists)).numpy()


def check_one_to_one(slots, exists, count):
    for row, there in zip(slots, exists):
        given = row[row >= 0]
        assert len(set(given)) == len(given) == min(there.sum(), count)
        assert (row[~there] == -1).all() and (given < count).all()


def total(costs, slots):
    return [sum(c[m, s] for m, s in enumerate(row) if s >= 0) for c, row in zip(costs, slots)]


@pytest.mark.parametrize("masks, slots", [(3, 5), (4, 4), (5, 3), (1, 4), (4, 1)])
@pytest.mark.parametrize("ties", [False, True])
def test_no_assignment_is_cheaper(matcher, masks, slots, ties):
    rng = np.random.default_rng(masks * 10 + slots)
    costs = rng.normal(size=[6, masks, slots]).astype(np.float32)
    costs = np.round(costs) if ties else costs
    exists = np.ones([6, masks], bool)
    found = matcher(costs, exists)
    check_one_to_one(found, exists, slots)
    few, many = min(masks, slots), max(masks, slots)
    for cost, value in zip(costs, total(costs, found)):
        cost = cost if masks <= slots else cost.T
        best = min(sum(cost[i, p[i]] for i in range(few)) for p in itertools.permutations(range(many), few))
        np.testing.assert_allclose(value, best, atol=1e-5)


@pytest.mark.parametrize("masks, slots", [(40, 24), (24, 40)])
def test_cost_equals_scipy_with_padding_anywhere(matcher, masks, slots):
    rng = np.random.default_rng(0)
    costs = -(rng.uniform(size=[4, masks, slots]).astype(np.float32) ** 4)
    exists = rng.uniform(size=[4, masks]) < np.array([0.2, 0.5, 0.9, 1.0])[:, None]
    found = matcher(costs, exists)
    check_one_to_one(found, exists, slots)
    for cost, there, value in zip(costs, exists, total(costs, found)):
        rows, columns = scipy.optimize.linear_sum_assignment(cost[there])
        np.testing.assert_allclose(value, cost[there][rows, columns].sum(), rtol=1e-5)


def test_large_costs_do_not_lose_the_optimum(matcher):
    costs = np.float32([[[1000.0, 1001.0], [1000.0, 1003.0]]])
    np.testing.assert_array_equal(matcher(costs, np.ones([1, 2], bool)), [[1, 0]])


def test_image_without_masks_next_to_one_with(matcher):
    costs = np.zeros([2, 3, 2], np.float32)
    exists = np.array([[False] * 3, [False, True, False]])
    np.testing.assert_array_equal(matcher(costs, exists), [[-1] * 3, [-1, 0, -1]])


@pytest.mark.parametrize("masks, slots", [(0, 4), (3, 0), (0, 0)])
def test_without_masks_or_slots_there_is_nothing_to_match(matcher, masks, slots):
    found = np.asarray(matcher(np.zeros([2, masks, slots], np.float32), np.ones([2, masks], bool)))
    assert found.shape == (2, masks) and found.dtype == np.int32 and (found == -1).all()


def test_costs_that_are_not_finite_are_the_worst(matcher):
    costs = np.float32([[[np.nan, 5.0, np.inf], [7.0, -np.inf, 9.0]]])
    np.testing.assert_array_equal(matcher(costs, np.ones([1, 2], bool)), [[1, 0]])
    nothing_finite = matcher(np.full([1, 2, 3], np.nan, np.float32), np.ones([1, 2], bool))
    check_one_to_one(nothing_finite, np.ones([1, 2], bool), 3)


def test_no_cost_is_as_bad_as_one_that_is_not_finite(matcher):
    # The slot of finite cost comes second, so that a draw between the two would go to the other.
    for not_finite in (np.nan, np.inf, -np.inf):
        np.testing.assert_array_equal(matcher(np.float32([[[not_finite, 5.0]]]), np.ones([1, 1], bool)), [[1]])


def test_a_mask_has_a_slot_even_if_none_of_its_costs_is_finite(matcher):
    # The second mask is padding, so there is a slot for each mask.
    np.testing.assert_array_equal(matcher(np.float32([[[np.nan], [0.0]]]), np.array([[True, False]])), [[0, -1]])


def test_batch_may_be_unknown_and_shapes_stay_static():
    for backend in ("host", "xla"):
        spec = [tf.TensorSpec([None, 3, 4], tf.float32), tf.TensorSpec([None, 3], tf.bool)]
        function = tf.function(lambda c, e, b=backend: match(c, e, b), input_signature=spec)
        assert function.get_concrete_function().output_shapes.as_list() == [None, 3]
        assert function(tf.random.normal([5, 3, 4]), tf.fill([5, 3], True)).shape == [5, 3]


def test_unknown_backend_is_named():
    with pytest.raises(ConfigError, match="'gpu'"):
        match(tf.zeros([1, 1, 1]), tf.constant([[True]]), "gpu")
