"""Where a run starts from, and the checkpoints it leaves behind. Both in DeepLab2's layout."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping

import tensorflow as tf

from deeplab2_kmax.checkpoints import (
    checkpoint_items,
    holds_averages,
    load_checkpoint,
    resolve_checkpoint,
)
from deeplab2_kmax.checkpoints.cleanup import can_be_opened, remove
from deeplab2_kmax.checkpoints.integrity import last_whole_checkpoint
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.protos import model_pb2
from deeplab2_kmax.terminal import say
from deeplab2_kmax.training.optimizers.checkpoint_state import require_state
from deeplab2_kmax.training.optimizers.ema import WeightAverages, require_same_averaging
from deeplab2_kmax.training.run.stop_signals import StopSignals
from deeplab2_kmax.training.run.storage_errors import storage_fault
from deeplab2_kmax.training.step.loss_scale import LossScale, holds_loss_scale

_STEP = "global_step/.ATTRIBUTES/VARIABLE_VALUE"


class RunCheckpoints(tf.train.CheckpointManager):
    """The checkpoints `ckpt-<step>` in a run's folder.

    Args:
        model: the network.
        global_step: int64 scalar variable; it is part of the checkpoint.
        directory: the run's folder.
        keep: how many checkpoints to keep; older ones are deleted.
        interval: steps between two checkpoints.
        initialize: called where the folder holds no checkpoint; returns a sentence saying what the run starts from.
        optimizers: of a run that trains, by their names in a checkpoint; a checkpoint without their state is refused.
        averages: of the weights, in a run that trains with them.
        loss_scale: of a run that trains with one.
        restore_averages: give the model the averages in a checkpoint in place of its weights; for evaluation.
        stop: signals that wait while a checkpoint is written.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        global_step: tf.Variable,
        directory: str,
        *,
        keep: int = 5,
        interval: int = 1000,
        initialize: Callable[[], str],
        optimizers: Mapping[str, tf.keras.optimizers.legacy.Optimizer] | None = None,
        averages: WeightAverages | None = None,
        loss_scale: LossScale | None = None,
        restore_averages: bool = False,
        stop: StopSignals | None = None,
    ):
        self._items = {**checkpoint_items(model), **(optimizers or {}), "global_step": global_step}
        self._averages = averages
        self._loss_scale = loss_scale
        super().__init__(
            self._checkpoint_with(averages, loss_scale),
            directory,
            max_to_keep=keep,
            step_counter=global_step,
            checkpoint_interval=interval,
        )
        self._global_step = global_step
        self._interval = interval
        self._initialize = initialize
        self._model = model
        self._optimizers = dict(optimizers or {})
        self._restore_averages = restore_averages
        self._last_step = 0
        self._stop = stop or StopSignals()

    def _checkpoint_with(self, *others: WeightAverages | LossScale | None) -> tf.train.Checkpoint:
        items = dict(self._items)
        for other in others:
            if other is not None:
                items.update(other.checkpoint_items)
        return tf.train.Checkpoint(**items)

    def restore_or_initialize(self) -> str | None:
        """Restores the latest checkpoint, or else initializes; says which. Returns the path of that checkpoint.

        Raises:
            CheckpointError: the checkpoint does not fit the model or its optimizers.
        """
        path = last_whole_checkpoint(self.directory)
        if path is None:
            say(self._initialize())
            if self._averages:
                self._averages.start()
            return None
        self.restore(path)
        say(f"{'resumed from' if self._optimizers else 'evaluating'} {path} at step {self._global_step.numpy()}")
        return path

    def restore(self, path: str) -> None:
        """Restores `path`: all of the model, and all of the optimizers where the run trains."""
        load_checkpoint(self._model, path)
        if step_of(path) > 0:  # Optimizers have no state before their first step.
            require_state(path, self._optimizers)
        if self._optimizers:
            require_same_averaging(path, self._averages)
        goes_on_averaging = self._averages and holds_averages(path)
        goes_on_scaling = self._loss_scale and holds_loss_scale(path)
        checkpoint = self._checkpoint_with(
            self._averages if goes_on_averaging else None, self._loss_scale if goes_on_scaling else None
        )
        try:
            # What is not matched is the optimizers' part of the file, which evaluation leaves alone.
            checkpoint.restore(path).expect_partial().assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise CheckpointError(f"{path} does not fit this experiment: {_first_line(error)}") from error
        if goes_on_averaging:
            if change := self._averages.decay_changed(path):
                say(change)
        elif self._averages:
            self._averages.start()
            say(f"{path} holds no averaged weights; averaging starts from its weights")
        if self._loss_scale and not goes_on_scaling:
            self._loss_scale.start()
            say(f"{path} holds no loss scale; it starts at {self._loss_scale.initial:g}")
        if self._restore_averages:
            load_checkpoint(self._model, path, averaged=True)
        self._last_step = int(self._global_step.numpy())

    def save(self, checkpoint_number=None, check_interval=True, options=None) -> str | None:
        """Saves where it is due: `interval` steps after the last time, or any new step with `check_interval=False`."""
        step = int(self._global_step.numpy())
        since_last = step - self._last_step
        if since_last == 0 or (check_interval and since_last < self._interval):
            return None
        with self._stop.held():
            path = self._write(step, options)
            self._last_step = step
            say(f"checkpoint saved: {path}")
        return path

    def _write(self, step: int, options: tf.train.CheckpointOptions | None) -> str:
        prefix = os.path.join(self.directory, f"ckpt-{step}")
        last = self.latest_checkpoint
        try:
            # A damaged one of this name, say. Its index would be overwritten in place: halfway, it would be taken for
            # that of the new data, and links to it elsewhere would change with it.
            remove(f"{prefix}.index")
            return super().save(checkpoint_number=step, check_interval=False, options=options)
        except (tf.errors.OpError, OSError) as error:
            _remove_torn(prefix)
            reason = storage_fault(error) or _first_line(error)
            sound = f"the last one, {last}, is whole" if last else "none was written before"
            raise CheckpointError(
                f"cannot write a checkpoint to {os.path.abspath(self.directory)}: {reason} ({sound}). Once this is"
                " mended, the same command goes on"
            ) from error


def step_of(path: str | None) -> int:
    """The step a checkpoint was written at; 0 for none, and for one that does not say."""
    if path is None:
        return 0
    reader = tf.train.load_checkpoint(path)
    return int(reader.get_tensor(_STEP)) if reader.has_tensor(_STEP) else 0


def _remove_torn(prefix: str) -> None:
    """Frees the room that a checkpoint takes which could not be written; one that was written stays."""
    with contextlib.suppress(tf.errors.OpError, OSError):
        remove(f"{prefix}_temp")
        if not can_be_opened(prefix):
            for path in tf.io.gfile.glob(f"{prefix}.*"):
                remove(path)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def pretrained_encoder(directory: str, options: model_pb2.ModelOptions) -> str:
    """The `pretrained_weights` that training in `directory` starts from, or "" where none are needed.

    A checkpoint in the folder comes first, and so does an initial_checkpoint that holds an encoder: it would be loaded
    over them.
    """
    path = options.backbone.pretrained_weights
    if not path or last_whole_checkpoint(directory):
        return ""
    if options.initial_checkpoint:
        keys = tf.train.load_checkpoint(resolve_checkpoint(options.initial_checkpoint)).get_variable_to_shape_map()
        if any(key.startswith("encoder/") for key in keys):
            return ""
    return path


def require_start(directory: str, initial_checkpoint: str, training: bool) -> None:
    """Checks that a run has weights to start from, before anything is built.

    Args:
        directory: the run's folder; a checkpoint in it comes first.
        initial_checkpoint: a checkpoint or a folder of them, or "".
        training: whether the run may start from scratch.

    Raises:
        CheckpointError: `initial_checkpoint` is needed and does not exist, or there is nothing to evaluate.
    """
    if last_whole_checkpoint(directory):
        return
    if initial_checkpoint:
        try:
            resolve_checkpoint(initial_checkpoint)
        except CheckpointError as error:
            raise CheckpointError(f"model_options.initial_checkpoint: {error}") from error
    elif not training:
        raise CheckpointError(
            f"no checkpoint to evaluate: {os.path.abspath(directory)} holds none, and"
            " model_options.initial_checkpoint is not set. Train first (--mode=train), or point --model_dir and"
            " experiment_name at a trained model"
        )
