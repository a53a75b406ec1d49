"""A batch in parts updates the weights as the whole batch does."""

import re

import numpy as np
import orbit
import pytest
import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.training.optimizers import Schedule, SolverSettings, build_optimizers
from deeplab2_kmax.training.step.accumulation import require_equal_parts
from deeplab2_kmax.training.step.loop import Trainer
from deeplab2_kmax.training.step.step import TrainStep

NAMES = ("fit_loss", "total_loss")


class TwoLayers(tf.keras.Model):
    """[B, 4] -> [B, 2], without anything that looks at other images of the batch."""

    def __init__(self):
        super().__init__()
        self.first = self.add_weight("first_kernel", [4, 3], initializer=tf.keras.initializers.GlorotUniform(1))
        self.second = self.add_weight("second_kernel", [3, 2], initializer=tf.keras.initializers.GlorotUniform(2))
        self.unused = self.add_weight("unused", [2], initializer="ones")
        # Of all replicas together.
        self.images_seen = self.add_weight(
            "images_seen",
            [],
            initializer="zeros",
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )

    def call(self, images, training=False):
        self.images_seen.assign_add(tf.cast(images.shape[0], tf.float32))
        return {"prediction": tf.tanh(images @ self.first) @ self.second}


def fit_loss(targets, outputs):
    fit = tf.reduce_sum((outputs["prediction"] - targets["target"]) ** 2, 1)
    return {"fit_loss": fit, "total_loss": fit}


def train(micro_batches, steps=4, **solver):
    """A model after training on batches of 6, on the strategy in scope, and what the loop logged."""
    rng = np.random.default_rng(0)
    data = {"image": rng.normal(size=[24, 4]), "target": 5 * rng.normal(size=[24, 2])}
    data = {name: values.astype(np.float32) for name, values in data.items()}
    model = TwoLayers()
    settings = SolverSettings("adamw", Schedule(0.05, total_steps=100), weight_decay=0.1, **solver)
    step = TrainStep(
        model=model,
        loss=fit_loss,
        loss_names=NAMES,
        optimizers=build_optimizers(settings, model.trainable_variables),
        micro_batches=micro_batches,
    )
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(6, drop_remainder=True).repeat()
    dataset = tf.distribute.get_strategy().experimental_distribute_dataset(dataset)
    global_step = orbit.utils.create_global_step()
    logs = Trainer(step=step, dataset=dataset, global_step=global_step).train(tf.constant(steps))
    return model, logs, int(global_step.numpy())


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_parts_of_a_batch_update_as_the_whole(clip_norm):
    whole, whole_logs, _ = train(1, clip_norm=clip_norm)
    for parts in (2, 3):
        model, logs, updates = train(parts, clip_norm=clip_norm)
        assert updates == 4
        for ours, theirs in zip(model.trainable_variables, whole.trainable_variables):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        assert {name: float(value) for name, value in logs.items()} == pytest.approx(
            {name: float(value) for name, value in whole_logs.items()}, rel=1e-5
        )
    start = TwoLayers()
    assert not np.allclose(whole.first, start.first, atol=1e-2)
    np.testing.assert_array_equal(whole.unused, start.unused)


def test_a_forward_pass_sees_one_part():
    """Each image once; what a pass updates by itself, as batch norms do, is updated part by part."""
    model, _, _ = train(3)
    assert float(model.images_seen) == 4 * 6
    assert [tuple(pass_.shape) for pass_ in _images_of_passes(model)] == [(2, 4)]


def _images_of_passes(model):
    traced = []
    original = model.call
    model.call = lambda images, training=False: traced.append(images) or original(images, training)
    step = TrainStep(
        model=model,
        loss=fit_loss,
        loss_names=NAMES,
        optimizers=build_optimizers(SolverSettings("sgd", Schedule(0.1)), model.trainable_variables),
        micro_batches=3,
    )
    spec = {"image": tf.TensorSpec([6, 4]), "target": tf.TensorSpec([6, 2])}
    tf.function(step, input_signature=[spec]).get_concrete_function()
    return traced


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 1, 4), "4 parts on 1 replica need a train_dataset_options.batch_size that is a multiple of 4, got 6"),
        ((4, 2, 4), "4 parts on 2 replicas need a train_dataset_options.batch_size that is a multiple of 8, got 4"),
    ],
)
def test_batches_that_cannot_be_cut(arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        require_equal_parts(*arguments)
    require_equal_parts(6, 1, 3)
