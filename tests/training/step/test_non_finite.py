"""Steps that are not finite: nothing is changed by them, and training stops or goes on."""

import re

import numpy as np
import orbit
import pytest
import tensorflow as tf

from deeplab2_kmax.errors import TrainingError
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.training.optimizers import Schedule, SolverSettings, build_optimizers
from deeplab2_kmax.training.step.loop import Trainer
from deeplab2_kmax.training.step.non_finite import NonFinite, NonFinitePolicy
from deeplab2_kmax.training.step.step import TrainStep

NAMES = ("fit_loss", "total_loss")
SKIP_TWO = NonFinitePolicy(in_a_row=3, skips=True)


class Normalized(tf.keras.Model):
    """One weight a channel, after a batch norm."""

    def __init__(self):
        super().__init__()
        self.norm = BatchNorm(Normalization(momentum=0.5))
        self.norm.build([None, 3])
        self.weight = self.add_weight("kernel", shape=[3], initializer="ones")

    def call(self, images, training=False):
        return {"prediction": tf.reduce_sum(self.norm(images, training=training) * self.weight, 1)}


def fit_loss(targets, outputs):
    fit = (outputs["prediction"] - targets["target"]) ** 2
    return {"fit_loss": fit, "total_loss": fit}


def images_of(steps, images, seed=0):
    """{"image": [steps * images, 3], "target": [steps * images], "image_name": ...} of noise."""
    rng = np.random.default_rng(seed)
    count = steps * images
    return {
        "image": rng.normal(size=[count, 3]).astype(np.float32),
        "target": rng.normal(size=[count]).astype(np.float32),
        "image_name": np.asarray([f"picture {index}" for index in range(count)]),
    }


def batched(data, images):
    return tf.data.Dataset.from_tensor_slices(data).batch(images, drop_remainder=True).repeat()


def make_trainer(dataset, micro_batches=1, solver=None, compiled=False, **options):
    """(trainer, model, global step, optimizers), in the strategy's scope."""
    model = Normalized()
    solver = solver or SolverSettings("adamw", Schedule(0.1, total_steps=10**6), weight_decay=0.1)
    optimizers = build_optimizers(solver, model.trainable_variables)
    step = TrainStep(
        model=model,
        loss=fit_loss,
        loss_names=NAMES,
        optimizers=optimizers,
        micro_batches=micro_batches,
        compiled=compiled,
    )
    global_step = orbit.utils.create_global_step()
    return Trainer(step=step, dataset=dataset, global_step=global_step, **options), model, global_step, optimizers


def state(model, optimizers):
    """All that a step changes, as arrays: weights, moving statistics, and the optimizer's slots and count."""
    return [variable.numpy() for variable in (*model.variables, *optimizers.main.variables())]


def poisoned(data, *steps, images=4):
    """`data` with one pixel of a batch's last image not a number, so that all activations behind the norm are not."""
    image = data["image"].copy()
    for step in steps:
        image[step * images - 1, 0] = np.nan
    return {**data, "image": image}


def without(data, step, images=4):
    kept = np.r_[0 : (step - 1) * images, step * images : len(data["target"])]
    return {name: values[kept] for name, values in data.items()}


@pytest.mark.parametrize("in_graph", [False, True], ids=["on the host", "in the graph"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_skipped_step_leaves_no_trace(in_graph, micro_batches):
    data = images_of(steps=4, images=4)
    runs = []
    for batches, steps in ((poisoned(data, 2), 4), (without(data, 2), 3)):
        trainer, model, step, optimizers = make_trainer(
            batched(batches, 4), micro_batches, policy=SKIP_TWO, in_graph=in_graph
        )
        logs = trainer.train(tf.constant(steps))
        assert int(step) == steps
        assert int(optimizers.main.iterations) == 3
        assert float(logs.pop("skipped_steps")) == steps - 3
        runs.append((state(model, optimizers), float(logs["losses/train_fit_loss"]), float(logs["gradient_norm"])))
    for skipped, never_seen in zip(runs[0][0], runs[1][0]):
        np.testing.assert_array_equal(skipped, never_seen)
    assert np.isfinite(runs[0][1:]).all()
    assert runs[0][1:] == pytest.approx(runs[1][1:], rel=1e-6)


@pytest.mark.parametrize("in_graph", [False, True], ids=["on the host", "in the graph"])
def test_training_stops_at_once_and_says_with_what(in_graph):
    data = images_of(steps=4, images=4)
    found = []
    trainer, model, step, optimizers = make_trainer(
        batched(poisoned(data, 2), 4), in_graph=in_graph, on_failure=lambda what: found.append(what) or "Kept."
    )
    trainer.train(tf.constant(1))
    before = state(model, optimizers)
    message = (
        "training stopped at step 2: not finite: fit_loss, total_loss. Records: picture 4, picture 5, picture 6,"
        " picture 7. No weight was updated with it; the checkpoints written before are sound. A lower"
        " base_learning_rate, a longer warm-up or use_gradient_clipping usually help. Kept."
    )
    with pytest.raises(TrainingError, match=f"^{re.escape(message)}$"):
        trainer.train(tf.constant(3))
    assert int(step) == 1
    for ours, theirs in zip(state(model, optimizers), before):
        np.testing.assert_array_equal(ours, theirs)
    assert np.isnan(found[0].terms["total_loss"])
    assert found[0].gradients == [variable.name for variable in model.trainable_variables]
    np.testing.assert_array_equal(found[0].batch["image"], poisoned(data, 2)["image"][4:8])


class WithSideBranch(Normalized):
    """As `Normalized`, with a norm whose result nobody uses: its statistics may overflow while the loss is finite."""

    def __init__(self):
        super().__init__()
        self.side = BatchNorm(Normalization(momentum=0.5), name="side")
        self.side.build([None, 3])

    def call(self, images, training=False):
        self.side(images * 1e20, training=training)
        return super().call(tf.tanh(images), training=training)


@pytest.mark.parametrize("in_graph", [False, True], ids=["on the host", "in the graph"])
def test_a_moving_statistic_that_is_not_finite_stops_training_too(in_graph, monkeypatch):
    monkeypatch.setitem(globals(), "Normalized", WithSideBranch)
    found = []
    trainer, model, step, optimizers = make_trainer(
        batched(images_of(steps=2, images=4), 4), in_graph=in_graph, on_failure=lambda what: found.append(what) or ""
    )
    before = state(model, optimizers)
    with pytest.raises(TrainingError, match="at step 1: not finite: the moving statistics .*moving_variance"):
        trainer.train(tf.constant(2))
    for ours, theirs in zip(state(model, optimizers), before):
        np.testing.assert_array_equal(ours, theirs)
    assert np.isfinite(found[0].terms["total_loss"]) and not found[0].gradients


def test_skipping_ends_after_so_many_in_a_row():
    data = images_of(steps=8, images=4)
    # Two, one that is fine, and then three.
    trainer, _, step, _ = make_trainer(batched(poisoned(data, 2, 3, 5, 6, 7), 4), policy=SKIP_TWO)
    with pytest.raises(TrainingError, match="stopped at step 7 after 3 such steps in a row: not finite: fit_loss"):
        trainer.train(tf.constant(8))
    assert int(step) == 6


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_that_xla_compiles_skips_too(micro_batches):
    data = poisoned(images_of(steps=3, images=4), 2)
    runs = []
    for compiled in (False, True):
        trainer, model, _, optimizers = make_trainer(
            batched(data, 4), micro_batches, compiled=compiled, policy=SKIP_TWO
        )
        assert float(trainer.train(tf.constant(3))["skipped_steps"]) == 1
        runs.append(state(model, optimizers))
    for plain, by_xla in zip(*runs):
        np.testing.assert_allclose(by_xla, plain, rtol=1e-5, atol=1e-6)


def test_the_policy_of_a_config():
    options = config_pb2.TrainerOptions()
    assert NonFinitePolicy.from_options(options) == NonFinitePolicy(in_a_row=1, skips=False)
    options.non_finite_policy = options.SKIP
    assert NonFinitePolicy.from_options(options) == NonFinitePolicy(in_a_row=10, skips=True)


def test_long_lists_are_cut():
    names = [f"kernel_{index}" for index in range(7)]
    batch = {"image_name": np.asarray([b"a picture"] * 40)}
    message = NonFinite(3, {"total_loss": 1.0}, names, 9, batch).message(NonFinitePolicy())
    assert "the gradient (7 of 9 weights) of kernel_0, kernel_1, kernel_2, kernel_3, kernel_4 and 2 more." in message
    assert message.count("a picture") == 32 and "and 8 more. No weight" in message
