"""Our own RectifiedAdam and Lookahead beside tensorflow-addons': the same steps, and each goes on from the other's."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.dependency_lines import tensorflow_addons_optimizers
from deeplab2_kmax.training.optimizers import Schedule, SolverSettings, build_optimizers

pytestmark = pytest.mark.skipif(
    tensorflow_addons_optimizers() is None, reason="on the second line there is no tensorflow-addons to compare with"
)
# RectifiedAdam, and Lookahead around it and around those that decay weights in their own ways.
KINDS = [("radam", 0), ("radam", 3), ("adamw", 3), ("lamb", 3)]


class Training:
    """A few variables and their optimizers, one of them for the encoder alone; the learning rate rises, then falls."""

    def __init__(self, kind, period, folder):
        schedule = Schedule(0.5, warmup_steps=4, total_steps=60)
        settings = SolverSettings(
            kind, schedule, 0.1, backbone_multiplier=0.5, lookahead_sync_period=period, lookahead_slow_step_size=0.7
        )
        random = np.random.RandomState(1)
        shapes = {"encoder/kernel": [3, 4], "encoder/bias": [4], "head/kernel": [4, 2], "head/table": [5, 2]}
        self.variables = [
            tf.Variable(random.standard_normal(shape).astype(np.float32), name=name) for name, shape in shapes.items()
        ]
        self.optimizers = build_optimizers(settings, self.variables, self.variables[:2])
        tracked = {f"variable{index}": variable for index, variable in enumerate(self.variables)}
        self.checkpoint = tf.train.Checkpoint(**self.optimizers.checkpoint_items, **tracked)
        self.prefix = str(folder / "ckpt")
        self._apply = tf.function(self._apply_gradients)

    def _apply_gradients(self, *gradients):
        # That of a table is of single rows, some of them twice, as with the tables of relative positions.
        rows = tf.IndexedSlices(gradients[-1][:3], tf.constant([4, 1, 4]), tf.constant([5, 2]))
        self.optimizers.apply(zip([*gradients[:-1], rows], self.variables))

    def step(self, number):
        random = np.random.RandomState(number)
        # Of very different sizes, and now and then zero.
        sizes = (1e-3, 0.0 if number % 3 else 1.0, 1.0, 3.0)
        self._apply(
            *(
                tf.constant(size * random.standard_normal(variable.shape), tf.float32)
                for size, variable in zip(sizes, self.variables)
            )
        )

    def values(self):
        """The weights, the slots and the counts of steps, by their names."""
        stored = [*self.variables, *self.optimizers.main.weights, *self.optimizers.backbone.weights]
        assert len({variable.name for variable in stored}) == len(stored) - 1  # Both optimizers count steps.
        return {variable.name: variable.numpy() for variable in stored}

    def write(self):
        return self.checkpoint.write(self.prefix)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """(kind, period, own) -> a Training with our own classes, or with those of tensorflow-addons."""

    def start(kind, period, own):
        folder = tmp_path / ("own" if own else "addons")
        folder.mkdir()
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "deeplab2_kmax.training.optimizers.radam_lookahead", raising=False)
            if own:
                patch.setitem(sys.modules, "tensorflow_addons.optimizers", None)  # As if it were not installed.
            training = Training(kind, period, folder)
        classes = [type(training.optimizers.main), type(getattr(training.optimizers.main, "_optimizer", None))]
        bases = {base.__module__.split(".")[0] for each in classes for base in each.__mro__}
        assert ("tensorflow_addons" in bases) == (not own)
        return training

    return start


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key in ours:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-6, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("kind, period", KINDS)
def test_every_step_is_the_same(kind, period, start):
    ours, theirs = start(kind, period, own=True), start(kind, period, own=False)
    assert_equal(ours.values(), theirs.values())
    before = ours.values()
    for number in range(20):  # With RectifiedAdam, the first five are not adapted.
        ours.step(number)
        theirs.step(number)
        assert_equal(ours.values(), theirs.values())
    moved = [key for key, value in ours.values().items() if not np.array_equal(value, before[key])]
    assert len(moved) > len(ours.variables)


@pytest.mark.parametrize("own", [True, False], ids=["to_addons", "from_addons"])
@pytest.mark.parametrize("kind, period", KINDS)
def test_a_checkpoint_goes_on_with_the_other(kind, period, own, start):
    writer, reader = start(kind, period, own), start(kind, period, not own)
    for number in range(7):  # Ends between two of Lookahead's synchronizations.
        writer.step(number)
    reader.checkpoint.read(writer.write()).assert_consumed()
    assert_equal(reader.values(), writer.values())
    keys = [key for key, _ in tf.train.list_variables(writer.prefix)]
    assert keys == [key for key, _ in tf.train.list_variables(reader.write())]
    for number in range(7, 10):
        writer.step(number)
        reader.step(number)
    assert_equal(reader.values(), writer.values())
