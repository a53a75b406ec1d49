"""How often each chain of color operations is drawn, and that the chain drawn is the one carried out."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.config.data_checks import AUTOAUGMENT_POLICIES
from deeplab2_kmax.input_pipeline.autoaugment import POLICIES, Step, apply_chain, chains_of, draw_chain
from deeplab2_kmax.input_pipeline.color_operations import OPERATIONS, equalize, sharpness
from helpers.augmentation_cases import picture


def test_configs_are_checked_against_the_policies_there_are():
    assert tuple(POLICIES) == AUTOAUGMENT_POLICIES


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_probabilities_by_hand(policy):
    chains = {chain.steps: chain.probability for chain in chains_of(policy)}
    assert sum(chains.values()) == pytest.approx(1)
    assert chains_of(policy)[0].steps == ()
    assert chains[()] == pytest.approx((0.6 * 0.8 + 0.8 + 0.8 * 0.8 + 0.8 * 0.4 + 0.8 * 0.8) / 5)
    (sharp, bright), (_, contrast), _, (solarize, equalize), _ = policy
    assert chains[(sharp.operation, sharp.level), (bright.operation, bright.level)] == pytest.approx(0.4 * 0.2 / 5)
    assert chains[(solarize.operation, solarize.level), (equalize.operation, equalize.level)] == pytest.approx(0.12 / 5)
    assert chains[((contrast.operation, contrast.level),)] == pytest.approx(0.2 / 5)
    # Of the second pair the first step is never taken: with it there would be 16 chains.
    assert len(chains) == 14


def test_levels_of_the_weaker_policy():
    strong, weak = POLICIES.values()
    for pair, weaker in zip(strong, weak):
        assert [step.level * 0.2 for step in pair] == [step.level for step in weaker]
        assert [step[:2] for step in pair] == [step[:2] for step in weaker]


def test_same_chain_by_two_ways_is_one():
    policy = ((Step("Solarize", 0.5, 0),), (Step("Solarize", 1.0, 0),))
    assert {chain.steps: chain.probability for chain in chains_of(policy)} == {(): 0.25, (("Solarize", 0),): 0.75}


def test_chains_are_drawn_as_often_as_they_should():
    policy = POLICIES["simple_classification_policy"]
    count = 3000
    draws = tf.map_fn(lambda i: draw_chain(tf.stack([7, i]), policy), tf.range(count, dtype=tf.int64), tf.int32).numpy()
    drawn = collections.Counter(draws.tolist())
    for index, chain in enumerate(chains_of(policy)):
        spread = np.sqrt(count * chain.probability)
        assert abs(drawn[index] - count * chain.probability) < 4 * spread, chain


def test_chain_is_carried_out_in_order():
    policy = POLICIES["simple_classification_policy"]
    image = tf.constant(picture(20, 30, 0))
    run = tf.function(lambda index: apply_chain(image, index, policy))
    for index, chain in enumerate(chains_of(policy)):
        expected = image
        for operation, level in chain.steps:
            expected = OPERATIONS[operation](expected, level)
        np.testing.assert_array_equal(run(tf.constant(index)), expected, err_msg=str(chain))
        assert not chain.steps or (expected != image).numpy().any()


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (5, 2)])
def test_images_without_inner_pixels_cannot_be_sharpened(size):
    image = tf.constant(picture(*size, 0))
    np.testing.assert_array_equal(sharpness(image, 9), image)


def test_channels_of_one_value_stay():
    image = tf.fill([9, 9, 3], tf.constant(40, tf.uint8))
    np.testing.assert_array_equal(equalize(image, 0), image)
