"""The exponential moving average (EMA) of a model's weights, kept beside the weights that are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import tensorflow as tf

from deeplab2_kmax.checkpoints import AVERAGED_WEIGHTS, object_tree, open_checkpoint
from deeplab2_kmax.checkpoints.files import VALUE_SUFFIX
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.errors import CheckpointError

# Item of a checkpoint that holds the state of averaging; the averages themselves are in AVERAGED_WEIGHTS.
_STATE = "weight_averaging"
_DECAY_KEY = f"{_STATE}/decay{VALUE_SUFFIX}"


class WeightAverages:
    """Averages of all variables of a model, updated after each step:

        average <- d * average + (1 - d) * weight,    d = min(decay, (1 + n) / (10 + n))

    where n counts the updates before this one. The smaller decay at first makes the average soon forget the weights
    that a run starts from. The moving statistics of batch norms are averaged like the rest: the averaged weights lag
    behind the trained ones, and so must the statistics that belong to them.

    Make it in the strategy's scope. The averages start as copies of the weights; see `start`.

    Args:
        variables: the model's variables by their checkpoint keys.
        decay: the largest d, in 0 .. 1 (exclusive).
    """

    def __init__(self, variables: Mapping[str, tf.Variable], decay: float):
        self.decay = decay
        self._variables = dict(variables)
        self._averages = {key: _copy(variable) for key, variable in variables.items()}
        # Each replica counts the updates of its own averages: without aggregation no replica waits for the others.
        self._updates = tf.Variable(0, trainable=False, dtype=tf.int64, name="averaged_updates")
        self._stored_decay = tf.Variable(decay, trainable=False, dtype=tf.float32, name="average_decay")

    @property
    def checkpoint_items(self) -> dict[str, tf.train.Checkpoint]:
        """What a checkpoint holds: the averages by DeepLab2's keys below `averaged_weights`, and their state."""
        state = tf.train.Checkpoint(updates=self._updates, decay=self._stored_decay)
        return {AVERAGED_WEIGHTS: tf.train.Checkpoint(**object_tree(self._averages)), _STATE: state}

    def start(self) -> None:
        """Makes the averages copies of the weights, as before the first update."""
        for key, average in self._averages.items():
            average.assign(self._variables[key].read_value())
        self._updates.assign(0)

    def update(self) -> None:
        """Updates the averages; call it in replica context, after the weights have changed."""
        n = tf.cast(self._updates, tf.float32)
        share = 1 - tf.minimum(self.decay, (1 + n) / (10 + n))
        for key, average in self._averages.items():
            # One assignment in place, average - (1 - d) * (average - weight), instead of a new tensor for each term.
            average.assign_sub(tf.cast(share, average.dtype) * (average - self._variables[key]))
        self._updates.assign_add(1)

    def decay_changed(self, path: str) -> str:
        """To be called after the checkpoint `path` was restored, whose averages may have been made with another decay.

        Returns:
            A sentence that says so, or "".
        """
        before = float(self._stored_decay.numpy())
        self._stored_decay.assign(self.decay)
        if abs(before - self.decay) < 1e-7:  # The checkpoint holds the decay in float32.
            return ""
        return f"weight_average_decay is {self.decay:g} from here on; the averages in {path} were made with {before:g}"

    @contextlib.contextmanager
    def in_the_model(self) -> Iterator[None]:
        """Gives the model the averages in this block; after it, its variables have their trained values again."""
        trained = {key: variable.numpy() for key, variable in self._variables.items()}
        try:
            for key, variable in self._variables.items():
                variable.assign(self._averages[key].read_value())
            yield
        finally:
            for key, variable in self._variables.items():
                variable.assign(trained[key])


def build_weight_averages(model: tf.keras.Model, decay: float) -> WeightAverages | None:
    """The averages of a model from `build_model`; None if `decay` is 0."""
    return WeightAverages(checkpoint_variables(model), decay) if decay else None


def require_same_averaging(path: str, averages: WeightAverages | None) -> None:
    """Checks that going on from a checkpoint throws away no averages.

    Args:
        path: prefix of the checkpoint.
        averages: of the run; None if it keeps none.

    Raises:
        CheckpointError: the checkpoint holds averages, and the run keeps none.
    """
    reader = open_checkpoint(path)
    if averages is None and reader.has_tensor(_DECAY_KEY):
        decay = float(reader.get_tensor(_DECAY_KEY))
        raise CheckpointError(
            f"{path} holds averaged weights, which training would lose: weight_average_decay is not set. Set"
            f" trainer_options.solver_options.weight_average_decay to {decay:g}, or, to train on without averages,"
            " choose another experiment_name with this checkpoint as model_options.initial_checkpoint"
        )


def _copy(variable: tf.Variable) -> tf.Variable:
    # Each replica has its own batch statistics (ON_READ), and so its own averages of them.
    own = variable.synchronization == tf.VariableSynchronization.ON_READ
    return tf.Variable(
        variable.read_value(),
        trainable=False,
        name=f"{variable.name.split(':')[0]}_average",
        synchronization=variable.synchronization if own else tf.VariableSynchronization.AUTO,
        aggregation=variable.aggregation if own else tf.VariableAggregation.NONE,
    )
