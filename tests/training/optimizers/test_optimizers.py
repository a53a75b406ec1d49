"""Schedules and optimizers against their formulas, and against figures DeepLab2 computes."""

import math

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.training.optimizers import (
    Schedule,
    SolverSettings,
    build_optimizer,
    build_optimizers,
    build_schedule,
)


def _rates(schedule, steps, multiplier=1.0):
    rate = build_schedule(schedule, multiplier)
    return [float(rate(tf.constant(step, tf.int64))) for step in steps]


def test_poly_with_warm_up_follows_its_formula():
    schedule = Schedule(5e-4, "poly", total_steps=150000, warmup_steps=5000, poly_power=0.9)
    steps = [0, 1, 2500, 4999, 5000, 75000, 149999, 150000, 160000]
    expected = [5e-4 * step / 5000 if step < 5000 else 5e-4 * (1 - min(step, 150000) / 150000) ** 0.9 for step in steps]
    np.testing.assert_allclose(_rates(schedule, steps), expected, rtol=1e-4, atol=1e-10)


def test_poly_ends_at_its_end_rate_whatever_the_multiplier():
    schedule = Schedule(1e-3, total_steps=10, poly_power=2.0, poly_end_learning_rate=1e-5)
    expected = [(1e-4 - 1e-5) * (1 - 0.5) ** 2 + 1e-5, 1e-5]
    np.testing.assert_allclose(_rates(schedule, [5, 10], multiplier=0.1), expected, rtol=1e-5)


def test_cosine_follows_its_formula():
    schedule = Schedule(2e-3, "cosine", total_steps=100, warmup_steps=10)
    expected = [2e-3 * 0.5] + [2e-3 * (1 + math.cos(math.pi * step / 100)) / 2 for step in (10, 50, 100)]
    np.testing.assert_allclose(_rates(schedule, [5, 10, 50, 100]), expected, rtol=1e-5, atol=1e-9)


def test_schedules_equal_deeplab2s():
    # deeplab2.trainer.trainer._create_optimizer with base_learning_rate 0.0005, training_number_of_steps 150000,
    # warmup_steps 5000 and learning rate multiplier 0.1, at these steps.
    steps = [1, 1234, 5000, 90000, 149000]
    poly = [1e-8, 1.2340000e-05, 4.8497470e-05, 2.1919164e-05, 5.5015818e-07]
    cosine = [1e-8, 1.2340000e-05, 4.9863047e-05, 1.7274571e-05, 5.4821374e-09]
    for policy, expected in (("poly", poly), ("cosine", cosine)):
        schedule = Schedule(5e-4, policy, total_steps=150000, warmup_steps=5000)
        np.testing.assert_allclose(_rates(schedule, steps, 0.1), expected, rtol=1e-5)


def _settings(optimizer="adamw", **changes):
    return SolverSettings(optimizer, Schedule(0.1, total_steps=1000, poly_power=1.0), **changes)


def test_only_kernels_decay():
    optimizer = build_optimizer(_settings(weight_decay=0.5))
    names = ("stem/kernel", "conv/depthwise_kernel", "dense/weight", "conv/bias", "norm/gamma", "cluster_centers")
    variables = [tf.Variable([2.0], name=name) for name in names]
    optimizer.apply_gradients([(tf.zeros([1]), variable) for variable in variables])
    decayed = 2.0 - 0.1 * 0.5 * 2.0
    assert [float(variable[0]) for variable in variables] == pytest.approx([decayed] * 3 + [2.0] * 3)


def test_adamw_step_is_adam_plus_decay():
    variable = tf.Variable([1.0], name="conv/kernel")
    build_optimizer(_settings(weight_decay=0.5)).apply_gradients([(tf.constant([3.0]), variable)])
    # Adam's first step is the learning rate in the gradient's direction; the weight was decayed before it.
    assert float(variable[0]) == pytest.approx(1.0 - 0.1 * 0.5 - 0.1, rel=1e-5)


def test_adamw_equals_deeplab2s_over_several_steps():
    # deeplab2.trainer.trainer._create_optimizer after the same four steps.
    schedule = Schedule(1e-2, "poly", total_steps=10, warmup_steps=2)
    optimizer = build_optimizer(SolverSettings("adamw", schedule, weight_decay=0.5))
    kernel = tf.Variable([0.3, -0.7], name="conv/kernel")
    bias = tf.Variable([0.3, -0.7], name="conv/bias")
    for step in range(4):
        gradient = tf.constant([0.1 * (step + 1), -2.0 + step])
        optimizer.apply_gradients([(gradient, kernel), (gradient, bias)])
    np.testing.assert_allclose(kernel.numpy(), [0.27738094, -0.68018860], rtol=1e-6)
    np.testing.assert_allclose(bias.numpy(), [0.28037035, -0.68725955], rtol=1e-6)


def test_sgd_has_momentum():
    variable = tf.Variable([0.0])
    optimizer = build_optimizer(SolverSettings("sgd", Schedule(0.1, total_steps=10**6)))
    for _ in range(2):
        optimizer.apply_gradients([(tf.constant([1.0]), variable)])
    assert float(variable[0]) == pytest.approx(-0.1 - 0.1 * 1.9, rel=1e-4)


def test_backbone_learns_at_its_own_rate():
    encoder, head = tf.Variable([0.0], name="encoder/kernel"), tf.Variable([0.0], name="head/kernel")
    optimizers = build_optimizers(_settings("adam", backbone_multiplier=0.1), [encoder, head], [encoder])
    optimizers.apply([(tf.constant([1.0]), encoder), (tf.constant([1.0]), head)])
    assert float(encoder[0]) == pytest.approx(0.1 * float(head[0]), rel=1e-4)
    assert set(optimizers.checkpoint_items) == {"optimizer", "backbone_optimizer"}


def test_without_multiplier_there_is_one_optimizer():
    encoder = [tf.Variable(0.0)]
    assert set(build_optimizers(_settings(), encoder, encoder).checkpoint_items) == {"optimizer"}


def test_settings_come_from_the_solver_options():
    options = config_pb2.ExperimentOptions().trainer_options.solver_options
    options.optimizer = "sgd"
    options.base_learning_rate = 0.25
    options.warmup_steps = 7
    options.clip_gradient_norm = 3.0
    settings = SolverSettings.from_options(options)
    assert (settings.optimizer, settings.schedule.base_learning_rate, settings.schedule.warmup_steps) == (
        "sgd",
        0.25,
        7,
    )
    # Clipping has a switch of its own, and the multiplier counts where it is set, even to 1.
    assert settings.clip_norm is None and settings.backbone_multiplier is None
    options.use_gradient_clipping = True
    options.backbone_learning_rate_multiplier = 1.0
    settings = SolverSettings.from_options(options)
    assert settings.clip_norm == 3.0 and settings.backbone_multiplier == 1.0


def test_unknown_optimizer_and_policy_are_named():
    with pytest.raises(ConfigError, match="adamw.*'lion'"):
        _settings("lion")
    with pytest.raises(ConfigError, match="cosine.*'step'"):
        Schedule(0.1, "step")
