"""RectifiedAdam, Lookahead and LAMB against their formulas; all optimizers over a restart and under XLA."""

import math

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.training.checkpoints.checkpointing import require_state
from deeplab2_kmax.training.optimizers import (
    Schedule,
    SolverSettings,
    build_optimizers,
)

RATE = 0.01
# Every kind, and Lookahead around those that prepare their steps in different ways.
KINDS = [(kind, period) for kind in ("adam", "adamw", "sgd", "radam", "lamb") for period in (0, 3)]


def settings(kind, period=0, weight_decay=0.1, **changes):
    schedule = Schedule(RATE, total_steps=10**9)
    return SolverSettings(kind, schedule, weight_decay, lookahead_sync_period=period, **changes)


def toy_variables():
    return [
        tf.Variable([[0.3, -0.7]], name="encoder/conv/kernel"),
        tf.Variable([0.3, -0.7], name="encoder/conv/bias"),
        tf.Variable([[1.0, 2.0]], name="head/conv/kernel"),
    ]


def gradients(step):
    return [tf.constant([[0.1 * (step + 1), step - 2.0]]), tf.constant([0.5, -step]), tf.constant([[1.0, 0.2 * step]])]


def train(optimizers, variables, steps, jit_compile=False):
    @tf.function(jit_compile=jit_compile)
    def step_fn(gradients):
        optimizers.apply(list(zip(gradients, variables)))

    for step in steps:
        step_fn(gradients(step))
    return [variable.numpy() for variable in variables]


def train_anew(solver, steps, jit_compile=False):
    variables = toy_variables()
    return train(build_optimizers(solver, variables, variables[:2]), variables, steps, jit_compile)


def rectified_adam(weight, gradients, decay):
    """The algorithm of Liu et al., with decoupled decay, in float64."""
    m = v = np.zeros_like(weight)
    longest = 2 / (1 - 0.999) - 1
    for t, gradient in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        length = longest - 2 * t * 0.999**t / (1 - 0.999**t)
        update = m / (1 - 0.9**t)
        if length >= 5:
            rectifier = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            update = math.sqrt(rectifier) * update / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
        weight = weight - RATE * (update + decay * weight)
    return weight


def test_rectified_adam_follows_its_algorithm_and_decays_kernels_only():
    steps = range(9)  # From the sixth step on the rate is rectified.
    kernel, bias, _ = train_anew(settings("radam"), steps)
    given = [gradients(step) for step in steps]
    start = toy_variables()
    expected = rectified_adam(start[0].numpy().astype(float), [g[0].numpy() for g in given], 0.1)
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)
    expected = rectified_adam(start[1].numpy().astype(float), [g[1].numpy() for g in given], 0.0)
    np.testing.assert_allclose(bias, expected, rtol=1e-5)


def test_lamb_follows_its_algorithm_and_adapts_what_decays():
    kernel, bias, _ = train_anew(settings("lamb"), range(1))
    start = toy_variables()
    # In Adam's first step each element moves by its sign.
    weight = start[0].numpy()
    update = np.sign(gradients(0)[0].numpy()) + 0.1 * weight
    ratio = np.linalg.norm(weight) / np.linalg.norm(update)
    np.testing.assert_allclose(kernel, weight - RATE * ratio * update, rtol=1e-4)
    np.testing.assert_allclose(bias, start[1].numpy() - RATE * np.sign(gradients(0)[1].numpy()), rtol=1e-4)


def test_lookahead_steps_back_to_the_slow_weights():
    solver = SolverSettings("sgd", Schedule(RATE, total_steps=10**9), lookahead_sync_period=3)
    plain = SolverSettings("sgd", Schedule(RATE, total_steps=10**9))
    start = [variable.numpy() for variable in toy_variables()]
    for value, fast in zip(train_anew(solver, range(2)), train_anew(plain, range(2))):
        np.testing.assert_array_equal(value, fast)
    for value, slow, fast in zip(train_anew(solver, range(3)), start, train_anew(plain, range(3))):
        np.testing.assert_allclose(value, slow + 0.5 * (fast - slow), rtol=1e-6)


@pytest.mark.parametrize("kind", ["radam", "lamb"])
def test_a_config_asks_for_them(kind, configs):
    solver = "trainer_options.solver_options"
    changes = [f"{solver}.optimizer={kind}", f"{solver}.lookahead_sync_period=5", f"{solver}.adamw_weight_decay=0.25"]
    config = load_config(str(configs / "shapes/kmax_tiny.textproto"), changes)
    settings = SolverSettings.from_options(config.trainer_options.solver_options)
    variables = toy_variables()
    optimizers = build_optimizers(settings, variables)
    assert type(optimizers.main).__name__ == "_Lookahead" and optimizers.main.get_slot(variables[0], "slow") is not None
    assert settings.decays and settings.weight_decay == 0.25
    # The warm-up of the config: 0.005 after 100 steps.
    assert float(optimizers.learning_rate(tf.constant(50, tf.int64))) == pytest.approx(0.0025)


@pytest.mark.parametrize("kind, period", KINDS)
def test_a_resumed_run_equals_an_uninterrupted_one(kind, period, tmp_path):
    # Stops between two of Lookahead's synchronizations, with the backbone's optimizer in use.
    solver = settings(kind, period, backbone_multiplier=0.1)

    def make():
        variables = toy_variables()
        optimizers = build_optimizers(solver, variables, variables[:2])
        tracked = {f"variable{index}": variable for index, variable in enumerate(variables)}
        return variables, optimizers, tf.train.Checkpoint(**optimizers.checkpoint_items, **tracked)

    variables, optimizers, checkpoint = make()
    train(optimizers, variables, range(5))
    path = checkpoint.write(str(tmp_path / "ckpt"))
    expected = train(optimizers, variables, range(5, 9))
    variables, optimizers, checkpoint = make()
    checkpoint.read(path).assert_consumed()
    for value, uninterrupted in zip(train(optimizers, variables, range(5, 9)), expected):
        np.testing.assert_array_equal(value, uninterrupted)


def test_a_kind_of_optimizer_does_not_take_over_anothers_state(tmp_path):
    def make(kind, period=0):
        return build_optimizers(settings(kind, period), toy_variables())

    for kind, others in (
        ("adamw", [("radam", 0), ("lamb", 0), ("sgd", 0), ("adamw", 3)]),
        ("radam", [("adamw", 0), ("lamb", 0), ("radam", 3)]),
        ("lamb", [("adamw", 0), ("radam", 0)]),
    ):
        variables = {str(index): variable for index, variable in enumerate(toy_variables())}
        optimizers = build_optimizers(settings(kind), list(variables.values()))
        path = tf.train.Checkpoint(**optimizers.checkpoint_items, **variables).write(str(tmp_path / kind))
        require_state(path, make(kind).checkpoint_items)
        for other, period in others:
            with pytest.raises(CheckpointError, match="`optimizer`.*settings may have changed"):
                require_state(path, make(other, period).checkpoint_items)


def test_weight_decay_is_the_configs_not_the_checkpoints(tmp_path):
    variables = toy_variables()
    path = tf.train.Checkpoint(**build_optimizers(settings("lamb"), variables).checkpoint_items).write(
        str(tmp_path / "ckpt")
    )
    solver = settings("lamb", weight_decay=0.5)
    variables = toy_variables()
    optimizers = build_optimizers(solver, variables)
    tf.train.Checkpoint(**optimizers.checkpoint_items).read(path).expect_partial()
    for value, expected in zip(train(optimizers, variables, range(2)), train_anew(solver, range(2))):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("kind, period", KINDS)
def test_a_step_compiles_with_xla(kind, period):
    solver = settings(kind, period, backbone_multiplier=0.1)
    for value, plain in zip(train_anew(solver, range(4), jit_compile=True), train_anew(solver, range(4))):
        np.testing.assert_allclose(value, plain, rtol=1e-5)


@pytest.mark.parametrize("kind, period", KINDS)
def test_only_the_rows_with_a_gradient_move(kind, period):
    table = tf.Variable([[1.0], [2.0], [3.0]], name="positions/table")
    optimizers = build_optimizers(settings(kind, period), [table])
    rows = tf.IndexedSlices(tf.constant([[1.0], [2.0], [1.0]]), tf.constant([0, 2, 0]), tf.constant([3, 1]))
    tf.function(lambda: optimizers.apply([(rows, table)]))()
    moved = table.numpy() < [[1.0], [2.0], [3.0]]
    np.testing.assert_array_equal(moved, [[True], [False], [True]])
