"""Loss scaling: an overflow is skipped and halves the scale; a loss that is not finite stays a fault."""

import functools

import numpy as np
import orbit
import pytest
import tensorflow as tf

from deeplab2_kmax.errors import TrainingError
from deeplab2_kmax.training.checkpoints.checkpointing import RunCheckpoints
from deeplab2_kmax.training.optimizers import Schedule, SolverSettings, build_optimizers
from deeplab2_kmax.training.step.loop import Trainer
from deeplab2_kmax.training.step.loss_scale import LossScale, build_loss_scale
from deeplab2_kmax.training.step.step import TrainStep

NAMES = ("fit_loss", "total_loss")


class OneWeight(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.weight = self.add_weight("kernel", shape=[], initializer="zeros")

    def call(self, images, training=False):
        return {"prediction": tf.reduce_mean(images, axis=[1, 2, 3]) * self.weight}


def loss(targets, outputs):
    fit = (outputs["prediction"] - targets["target"]) ** 2 + targets["poison"]
    return {"fit_loss": fit, "total_loss": fit}


def trainer_with(scale, poison=0.0, clip_norm=None):
    """A trainer on the strategy in scope; the gradients of the two images are -2 and -6."""
    model = OneWeight()
    settings = SolverSettings("sgd", Schedule(0.1, total_steps=10**6), clip_norm=clip_norm)
    images = {"image": tf.ones([2, 3, 3, 3]), "target": tf.constant([1.0, 3.0]), "poison": tf.constant([poison] * 2)}
    step = TrainStep(
        model=model,
        loss=loss,
        loss_names=NAMES,
        optimizers=build_optimizers(settings, model.trainable_variables),
        loss_scale=scale,
    )
    number = orbit.utils.create_global_step()
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(2, drop_remainder=True).repeat()
    dataset = tf.distribute.get_strategy().experimental_distribute_dataset(dataset)
    return Trainer(step=step, dataset=dataset, global_step=number), model, number


def run(trainer, steps):
    return trainer.train(tf.constant(steps))


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_overflows_are_skipped_until_the_scale_fits(clip_norm):
    # The gradient is -4 at first; times 2^127 and 2^126 that is beyond float32.
    scale = LossScale(2.0**127)
    trainer, model, number = trainer_with(scale, clip_norm=clip_norm)
    for halvings in (1, 2):
        logs = run(trainer, 1)
        assert float(scale.value) == 2.0 ** (127 - halvings)
        assert float(model.weight) == 0.0
        assert logs["skipped_steps"] == 1
        assert float(logs["loss_scale"]) == float(scale.value)
    logs = run(trainer, 1)
    assert logs["skipped_steps"] == 0
    assert float(scale.value) == 2.0**125
    # Exactly the step that training without a scale makes.
    plain, unscaled, _ = trainer_with(None, clip_norm=clip_norm)
    expected = run(plain, 1)
    assert float(model.weight) == float(unscaled.weight)
    assert logs["gradient_norm"] == expected["gradient_norm"]
    assert "loss_scale" not in expected
    assert int(number) == 3


def test_the_scale_grows_after_many_good_steps():
    scale = LossScale(8.0, growth_steps=3)
    trainer, _, _ = trainer_with(scale)
    scales = []
    for _ in range(7):
        run(trainer, 1)
        scales.append(float(scale.value))
    assert scales == [8, 8, 16, 16, 16, 32, 32]


def test_a_loss_that_is_not_finite_is_a_fault_and_no_overflow():
    scale = LossScale(8.0)
    trainer, _, number = trainer_with(scale, poison=np.nan)
    with pytest.raises(TrainingError, match="at step 1: not finite: fit_loss, total_loss"):
        run(trainer, 1)
    assert float(scale.value) == 8.0
    assert int(number) == 0


def test_a_gradient_that_no_scale_mends_is_a_fault():
    def steep(targets, outputs):
        return {name: tf.sqrt(tf.abs(outputs["prediction"])) for name in NAMES}

    scale = LossScale(4.0)
    trainer, model, _ = trainer_with(scale)
    trainer._step._loss = steep
    with pytest.raises(TrainingError, match="not finite: the gradient"):
        run(trainer, 5)
    assert float(scale.value) == 1.0
    assert float(model.weight) == 0.0


def checkpoints(folder, model, scale):
    number = tf.Variable(0, dtype=tf.int64)
    start = functools.partial(str, "from scratch")
    return RunCheckpoints(model, number, str(folder), interval=1, initialize=start, loss_scale=scale), number


def test_the_scale_is_part_of_the_checkpoint_and_may_be_missing(tmp_path, capsys):
    model, scale = OneWeight(), LossScale(2.0**10)
    model(tf.ones([1, 1, 1, 3]))
    with_scale, number = checkpoints(tmp_path / "with", model, scale)
    number.assign(1)
    path = with_scale.save(check_interval=False)
    assert any(key.startswith("loss_scale/") for key, _ in tf.train.list_variables(path))
    other = LossScale()
    checkpoints(tmp_path / "with", model, other)[0].restore_or_initialize()
    assert float(other.value) == 2.0**10
    # Training in another precision goes on from it, and back again.
    without, number = checkpoints(tmp_path / "with", model, None)
    without.restore_or_initialize()
    number.assign(2)
    path = without.save(check_interval=False)
    assert not any(key.startswith("loss_scale/") for key, _ in tf.train.list_variables(path))
    capsys.readouterr()
    checkpoints(tmp_path / "with", model, other)[0].restore_or_initialize()
    assert float(other.value) == 2.0**15
    assert "holds no loss scale; it starts at 32768" in " ".join(capsys.readouterr().out.split())


def test_only_float16_needs_one():
    assert build_loss_scale("float32") is None and build_loss_scale("mixed_bfloat16") is None
    assert float(build_loss_scale("mixed_float16").value) == 2.0**15
