"""Averages of the weights: their formula, their place in checkpoints, and who evaluates them."""

from types import SimpleNamespace

import numpy as np
import orbit
import pytest
import tensorflow as tf

from deeplab2_kmax.checkpoints import holds_averages, load_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.model import build_model
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving.inference import restored_model
from deeplab2_kmax.training.checkpoints.checkpointing import RunCheckpoints
from deeplab2_kmax.training.optimizers import (
    Schedule,
    SolverSettings,
    WeightAverages,
    build_optimizers,
    build_weight_averages,
)
from deeplab2_kmax.training.run import modes

KERNEL = "encoder/_stem/_conv/kernel"
MEAN = "encoder/_stem/_batch_norm/moving_mean"


def expected_average(values, decay, average):
    for n, value in enumerate(values):
        d = min(decay, (1 + n) / (10 + n))
        average = d * average + (1 - d) * value
    return average


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_they_follow_their_formula(decay, jit_compile):
    # With two optimizers, and a statistic that none of them updates.
    variables = {"a": tf.Variable([1.0]), "b": tf.Variable([2.0]), "mean": tf.Variable(4.0, trainable=False)}
    averages = WeightAverages(variables, decay)
    settings = SolverSettings("sgd", Schedule(0.1, total_steps=10**9), backbone_multiplier=0.5)
    trained = [variables["a"], variables["b"]]
    optimizers = build_optimizers(settings, trained, trained[:1], averages)

    @tf.function(jit_compile=jit_compile)
    def step():
        variables["mean"].assign_sub(1.0)
        optimizers.apply([(tf.constant([1.0]), variable) for variable in trained])

    start = {key: variable.numpy() for key, variable in variables.items()}
    seen = []
    for _ in range(9):
        step()
        seen.append({key: variable.numpy() for key, variable in variables.items()})
    with averages.in_the_model():
        for key, variable in variables.items():
            expected = expected_average([values[key] for values in seen], decay, start[key])
            np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)
    for key, variable in variables.items():
        np.testing.assert_array_equal(variable.numpy(), seen[-1][key])


class Run:
    """A run of the tiny model whose steps are made up."""

    def __init__(self, config, folder, decay=0.0):
        self.model = build_model(config)
        self.variables = checkpoint_variables(self.model)
        self.averages = build_weight_averages(self.model, decay)
        settings = SolverSettings("sgd", Schedule(0.1, total_steps=10**9))
        self.optimizers = build_optimizers(settings, self.model.trainable_variables, averages=self.averages)
        self.step = orbit.utils.create_global_step()
        self.checkpoints = RunCheckpoints(
            self.model,
            self.step,
            str(folder),
            initialize=lambda: "",
            optimizers=self.optimizers.checkpoint_items,
            averages=self.averages,
        )

    def train(self, steps=1):
        for _ in range(steps):
            self.variables[MEAN].assign_add(tf.ones_like(self.variables[MEAN]))
            gradients = [tf.ones_like(variable) for variable in self.model.trainable_variables]
            self.optimizers.apply(list(zip(gradients, self.model.trainable_variables)))
            self.step.assign_add(1)
        return self.checkpoints.save(check_interval=False)

    def averaged(self):
        with self.averages.in_the_model():
            return {key: self.variables[key].numpy() for key in (KERNEL, MEAN)}


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory):
    """A run with averages after three steps, its checkpoint and its averages."""
    run = Run(tiny_config, tmp_path_factory.mktemp("run"), decay=0.9)
    run.checkpoints.restore_or_initialize()
    path = run.train(3)
    return run, path, run.averaged()


def test_a_checkpoint_holds_the_trained_weights_and_beside_them_the_averages(tiny_config, trained):
    run, path, averaged = trained
    model = build_model(tiny_config)
    for how, expected in ((False, run.variables), (True, averaged)):
        assert load_checkpoint(model, path, averaged=how).complete
        for key in (KERNEL, MEAN):
            np.testing.assert_array_equal(checkpoint_variables(model)[key], expected[key])
    assert np.abs(averaged[MEAN] - run.variables[MEAN]).min() > 0.1


def test_a_resumed_run_goes_on_averaging(tiny_config, trained, tmp_path, capsys):
    run, path, _ = trained
    resumed = Run(tiny_config, tmp_path, decay=0.9)
    resumed.checkpoints.restore(path)
    resumed.train(2)
    again = Run(tiny_config, tmp_path, decay=0.5)
    again.checkpoints.restore(path)
    assert "weight_average_decay is 0.5 from here on; the averages in" in capsys.readouterr().out
    run.train(2)
    for key, value in run.averaged().items():
        np.testing.assert_array_equal(resumed.averaged()[key], value)
    run.checkpoints.restore(path)


def test_without_the_field_a_run_with_averages_does_not_go_on(tiny_config, trained, tmp_path):
    with pytest.raises(CheckpointError, match="averaged weights.*weight_average_decay to 0.9.*initial_checkpoint"):
        Run(tiny_config, tmp_path).checkpoints.restore(trained[1])


def test_averaging_may_start_later(tiny_config, tmp_path, capsys):
    path = Run(tiny_config, tmp_path).train()
    assert not holds_averages(path)
    run = Run(tiny_config, tmp_path, decay=0.9)
    assert run.checkpoints.restore_or_initialize() == path
    assert "holds no averaged weights; averaging starts from its weights" in " ".join(capsys.readouterr().out.split())
    np.testing.assert_array_equal(run.averaged()[KERNEL], run.variables[KERNEL])
    assert holds_averages(run.train())


def test_export_and_prediction_take_the_averages_where_the_config_says_so(tiny_config, trained, monkeypatch):
    monkeypatch.setattr("deeplab2_kmax.serving.inference.fold_batch_norms", lambda model: None)
    _, path, averaged = trained
    config = type(tiny_config)()
    config.CopyFrom(tiny_config)
    config.evaluator_options.use_averaged_weights = True
    _, model, _ = restored_model(config, path)
    np.testing.assert_array_equal(checkpoint_variables(model)[KERNEL], averaged[KERNEL])
    with pytest.raises(CheckpointError, match="holds no averaged weights.*weight_average_decay"):
        restored_model(config, tf.train.Checkpoint(step=tf.Variable(1)).write(path + "_without"))


def test_evaluation_restores_the_averages_where_the_config_says_so(tiny_config, trained, tmp_path):
    _, path, averaged = trained
    model, step = build_model(tiny_config), tf.Variable(0, dtype=tf.int64)
    RunCheckpoints(model, step, str(tmp_path), initialize=lambda: "", restore_averages=True).restore(path)
    assert int(step) == 3
    np.testing.assert_array_equal(checkpoint_variables(model)[KERNEL], averaged[KERNEL])


def test_training_with_evaluation_evaluates_the_averages_and_goes_on_with_the_weights(trained, monkeypatch):
    run, path, averaged = trained
    kernel, kept = run.variables[KERNEL], run.variables[KERNEL].numpy()
    evaluated = []
    monkeypatch.setattr(modes, "write_config", lambda *_: None)
    monkeypatch.setattr(modes, "train_until", lambda *_: None)
    monkeypatch.setattr(modes, "evaluate", lambda _: evaluated.append(kernel.numpy()))
    monkeypatch.setattr(modes, "_evaluation_results", lambda _: SimpleNamespace(add=lambda *_: None))
    modes.train_and_evaluate(
        SimpleNamespace(
            config=config_pb2.ExperimentOptions(),
            folder="",
            total_steps=3,
            global_step=run.step,
            checkpoints=run.checkpoints,
            evaluated_averages=run.averages,
        )
    )
    np.testing.assert_array_equal(evaluated, [averaged[KERNEL]])
    np.testing.assert_array_equal(kernel, kept)
