"""The training loop with a model of one weight."""

import numpy as np
import orbit
import pytest
import tensorflow as tf

from deeplab2_kmax.errors import TrainingError
from deeplab2_kmax.training.optimizers import Schedule, SolverSettings, build_optimizers
from deeplab2_kmax.training.reporting.step_clock import StepClock
from deeplab2_kmax.training.step.loop import Trainer
from deeplab2_kmax.training.step.step import TrainStep

NAMES = ("fit_loss", "other_loss", "total_loss")


class OneWeight(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.weight = self.add_weight("kernel", shape=[], initializer="zeros")
        self.unused = self.add_weight("unused", shape=[], initializer="zeros")

    def call(self, images, training=False):
        return {"prediction": tf.reduce_mean(images, axis=[1, 2, 3]) * self.weight}


def loss(targets, outputs):
    fit = (outputs["prediction"] - targets["target"]) ** 2
    other = targets["poison"]
    return {"fit_loss": fit, "other_loss": other, "total_loss": fit + other}


def batches(poison=()):
    """Endless batches of two, images of ones; `poison` gives the values of `other_loss`, step by step, then 0."""
    values = tf.data.Dataset.from_tensor_slices(np.asarray(poison, np.float32).reshape(-1))
    values = values.concatenate(tf.data.Dataset.from_tensors(0.0).repeat())
    return values.map(lambda v: {"image": tf.ones([2, 3, 3, 3]), "target": tf.constant([1.0, 3.0]), "poison": [v, v]})


def make_trainer(dataset, rate=0.1, *, clip_norm=None, clip_sum=False, **more):
    model = OneWeight()
    settings = SolverSettings("sgd", Schedule(rate, total_steps=10**6), clip_norm=clip_norm, clip_sum=clip_sum)
    optimizers = build_optimizers(settings, model.trainable_variables)
    step = orbit.utils.create_global_step()
    train_step = TrainStep(model=model, loss=loss, loss_names=NAMES, optimizers=optimizers)
    return Trainer(step=train_step, dataset=dataset, global_step=step, **more), model, step


def run(trainer, steps):
    return trainer.train(tf.constant(steps, tf.int32))


def test_a_step_follows_the_mean_loss_of_the_batch():
    trainer, model, step = make_trainer(batches())
    logs = run(trainer, 1)
    # d/dw mean((w - 1)^2, (w - 3)^2) at 0 is -4.
    assert float(model.weight) == pytest.approx(0.4, rel=1e-5)
    assert int(step) == 1
    assert float(logs["losses/train_total_loss"]) == pytest.approx(5.0)
    assert float(logs["losses/train_fit_loss"]) == pytest.approx(5.0)
    assert float(logs["gradient_norm"]) == pytest.approx(4.0)
    assert float(logs["learning_rate"]) == pytest.approx(0.1, rel=1e-4)


def test_every_batch_is_taken_through_the_function_given():
    clock = StepClock(images_per_step=2)
    trainer, _, _ = make_trainer(batches(), fetch=clock.fetch, on_step=clock.on_step)
    run(trainer, 1)
    run(trainer, 3)
    times = clock.end_loop(3)
    assert times.steps == 3
    assert 0 < times.waiting < times.seconds


def test_reported_losses_are_means_over_the_loop():
    trainer, _, _ = make_trainer(batches(poison=[6.0, 0.0]))
    assert float(run(trainer, 2)["losses/train_other_loss"]) == pytest.approx(3.0)
    assert float(run(trainer, 2)["losses/train_other_loss"]) == pytest.approx(0.0)


def test_clipping_limits_the_norm():
    trainer, model, _ = make_trainer(batches(), clip_norm=1.0)
    logs = run(trainer, 1)
    assert float(model.weight) == pytest.approx(0.1, rel=1e-5)
    assert float(logs["gradient_norm"]) == pytest.approx(4.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(value):
    trainer, model, step = make_trainer(batches(poison=[0.0, value]))
    with pytest.raises(TrainingError, match=r"at step 2: not finite: other_loss, total_loss\."):
        run(trainer, 5)
    assert int(step) == 1
    assert float(model.weight) == pytest.approx(0.4, rel=1e-5)


def test_a_gradient_that_is_not_finite_stops_too():
    def steep(targets, outputs):
        # Finite at 0, but its slope there is not.
        return {name: tf.sqrt(tf.abs(outputs["prediction"])) for name in NAMES}

    trainer, model, _ = make_trainer(batches())
    trainer._step._loss = steep
    with pytest.raises(TrainingError, match=r"at step 1: not finite: the gradient \(1 of 1 weight\) of kernel:0\."):
        run(trainer, 1)
    assert float(model.weight) == 0.0


def test_weights_the_loss_ignores_are_left_alone_and_named():
    trainer, model, _ = make_trainer(batches())
    named = []
    trainer._on_traced = lambda seconds, names: named.extend(names)
    run(trainer, 2)
    assert named == [model.unused.name]
    assert float(model.unused) == 0.0


def test_other_errors_pass_unchanged():
    broken = batches().map(lambda batch: {**batch, "target": tf.debugging.check_numerics(batch["target"] / 0.0, "bad")})
    trainer, _, _ = make_trainer(broken)
    with pytest.raises(tf.errors.InvalidArgumentError, match="bad"):
        run(trainer, 1)
