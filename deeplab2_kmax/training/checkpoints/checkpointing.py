"""The checkpoints that a run saves and goes on from, in DeepLab2's layout."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping

import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints import checkpoint_items, holds_averages, load_checkpoint, open_checkpoint
from deeplab2_kmax.checkpoints.cleanup import can_be_opened
from deeplab2_kmax.checkpoints.files import (
    INDEX,
    SLOT_MARK,
    VALUE_SUFFIX,
    is_whole,
    name_latest,
    size_of,
    sync_checkpoint,
)
from deeplab2_kmax.checkpoints.integrity import last_whole_checkpoint
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.stop_signals import StopSignals
from deeplab2_kmax.storage_errors import storage_fault
from deeplab2_kmax.terminal import say, say_note, say_warning
from deeplab2_kmax.training.optimizers.ema import WeightAverages, require_same_averaging
from deeplab2_kmax.training.step.loss_scale import LossScale, holds_loss_scale
from deeplab2_kmax.wording import counted, first_line, in_bytes

_STEP = f"global_step{VALUE_SUFFIX}"
# Items of an optimizer in a checkpoint that do not tell its kind. `lh_base_optimizer` is Lookahead's inner optimizer,
# whose kind its slots tell.
_OF_ANY_KIND = {"iter", "learning_rate", "lh_base_optimizer"}


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
        averages: moving averages of the weights, of a run that trains with them.
        loss_scale: of a run that trains with one.
        restore_averages: whether the model gets the averages in a checkpoint in place of its weights; for evaluation.
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
        # Remote storage has no empty folders.
        self._had_folder = not files.is_remote(directory) and files.exists(directory)
        self._keep = keep
        self._has_warned = False
        self._stop = stop or StopSignals()

    def _checkpoint_with(self, *others: WeightAverages | LossScale | None) -> tf.train.Checkpoint:
        items = dict(self._items)
        for other in others:
            if other is not None:
                items.update(other.checkpoint_items)
        return tf.train.Checkpoint(**items)

    def restore_or_initialize(self) -> str | None:
        """Restores the latest whole checkpoint, or initializes if there is none, and says so.

        Returns:
            The prefix of the checkpoint, or None.

        Raises:
            CheckpointError: the checkpoint does not fit the model or its optimizers.
        """
        path = last_whole_checkpoint(self.directory)
        if path is None:
            say(self._initialize())
            return None
        self.restore(path)
        say(f"{'resumed from' if self._optimizers else 'evaluating'} {path} at step {self._global_step.numpy()}")
        return path

    def restore(self, path: str) -> None:
        """Restores the checkpoint `path`: all of the model, and, in a run that trains, all of the optimizers' state.

        Averages and loss scale may be missing, since a run may begin to use them later; they start anew then.

        Raises:
            CheckpointError: the checkpoint does not fit the model or its optimizers.
        """
        # First by itself: TensorFlow's own restore, below, would name the variables that do not fit less clearly.
        load_checkpoint(self._model, path)
        if step_of(path) > 0:  # Optimizers have no state before their first step.
            require_state(path, self._optimizers)
        if self._optimizers:
            require_same_averaging(path, self._averages)
        averages = self._averages if holds_averages(path) else None
        loss_scale = self._loss_scale if holds_loss_scale(path) else None
        try:
            # `assert_existing_objects_matched`: all that this run has is in the checkpoint. Not the reverse, since an
            # evaluation has no optimizers.
            checkpoint = self._checkpoint_with(averages, loss_scale)
            checkpoint.restore(path).expect_partial().assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise CheckpointError(f"{path} does not fit this experiment: {first_line(error)}") from error
        if averages:
            if change := averages.decay_changed(path):
                say_note(change)
        elif self._averages:
            self._averages.start()
            say_note(f"{path} holds no averaged weights; averaging starts from its weights")
        if self._loss_scale and not loss_scale:
            self._loss_scale.start()
            say_note(f"{path} holds no loss scale; it starts at {self._loss_scale.initial:g}")
        if self._restore_averages:
            load_checkpoint(self._model, path, averaged=True)
        self._last_step = int(self._global_step.numpy())

    def save(
        self,
        checkpoint_number: int | None = None,
        check_interval: bool = True,
        options: tf.train.CheckpointOptions | None = None,
    ) -> str | None:
        """Saves a checkpoint if one is due.

        Args:
            checkpoint_number: ignored; checkpoints are numbered by the global step.
            check_interval: whether one is due only `interval` steps after the last; else at any new step.
            options: passed to TensorFlow.

        Returns:
            Its prefix, or None if none was due.

        Raises:
            CheckpointError: it cannot be written; or it is, but the folder had been deleted, and with it the lock that
                keeps other runs away.
        """
        # Not by TensorFlow's own interval, which forgets at a restart when the last checkpoint was written.
        step = int(self._global_step.numpy())
        since_last = step - self._last_step
        if since_last == 0 or (check_interval and since_last < self._interval):
            return None
        # A signal would interrupt the write and then save once more; so it waits.
        with self._stop.held():
            was_deleted = self._had_folder and not files.exists(self.directory)
            path = self._write(step, options)
            self._last_step = step
            say(f"checkpoint saved: {path}")
            self.warn_of_full_disk()
        if was_deleted:
            raise CheckpointError(
                f"{files.absolute(self.directory)} was deleted while the run used it. The present weights are saved"
                f" there as {os.path.basename(path)}, and the same command goes on from them"
            )
        return path

    def warn_of_full_disk(self) -> None:
        """Says, once, if the disk of a local folder has no room for the checkpoints to come.

        That are those up to the number to keep, and one more, since a new one is written before the oldest is deleted.
        """
        free = None if self._has_warned else files.free_space(self.directory)
        if free is None:
            return
        last = self.latest_checkpoint
        # Before the first one its size is that of what it will hold; names and checksums take little.
        size = size_of(last) if last and is_whole(last) else self._size_of_variables()
        coming = max(1, self._keep + 1 - len(self.checkpoints))
        if size * coming > free:
            self._has_warned = True
            say_warning(
                f"{files.absolute(self.directory)}: {in_bytes(free)} are free, and the checkpoints to come need"
                f" {in_bytes(size * coming)} ({counted(coming, 'checkpoint')} of {in_bytes(size)}); make room, or keep"
                " fewer (trainer_options.num_checkpoints_to_keep)"
            )

    def _size_of_variables(self) -> int:
        """The bytes of all variables that a checkpoint holds."""
        found = [v for v in tf.train.TrackableView(self._checkpoint).descendants() if isinstance(v, tf.Variable)]
        # Slots of optimizers are no descendants.
        found += [variable for optimizer in self._optimizers.values() for variable in optimizer.variables()]
        return sum(v.shape.num_elements() * v.dtype.size for v in {id(v): v for v in found}.values())

    def _write(self, step: int, options: tf.train.CheckpointOptions | None) -> str:
        """Writes `ckpt-<step>`, so that a process killed at any point leaves the checkpoint before it usable.

        TensorFlow writes the tensors to a temporary folder, moves them out of it, writes the index, records the
        checkpoint in the file `checkpoint` (`_record_state`), and only then deletes the oldest one. What was not
        recorded is cleared away by the next run (`deeplab2_kmax.checkpoints.cleanup`).
        """
        prefix = files.join(self.directory, f"ckpt-{step}")
        last = self.latest_checkpoint
        try:
            # There may be an older checkpoint of this name, a damaged one for example. TensorFlow would overwrite its
            # index in place: half-way the old index would be taken for that of the new data, and hard links to it in
            # other folders would change with it.
            files.remove(prefix + INDEX)
            path: str = super().save(checkpoint_number=step, check_interval=False, options=options)
            return path
        except (tf.errors.OpError, OSError) as error:
            _remove_torn(prefix)
            reason = storage_fault(error) or first_line(error)
            sound = f"the last one, {last}, is whole" if last else "none was written before"
            raise CheckpointError(
                f"cannot write a checkpoint to {files.absolute(self.directory)}: {reason} ({sound}). Once this is"
                " mended, the same command goes on"
            ) from error

    def _record_state(self) -> None:
        """Records the checkpoint just written as the newest; called before and after the oldest one is deleted.

        In place of TensorFlow's own, which leaves it to the operating system when files reach the disk: after a power
        cut, the file `checkpoint` could name a checkpoint whose data never did, with those before it deleted.
        """
        *older, latest = self.checkpoints
        sync_checkpoint(latest)
        name_latest(latest, older)


def step_of(path: str | None) -> int:
    """The step a checkpoint was written at; 0 for None, and for a checkpoint that does not hold its step."""
    if path is None:
        return 0
    reader = open_checkpoint(path)
    return int(reader.get_tensor(_STEP)) if reader.has_tensor(_STEP) else 0


def require_state(path: str, optimizers: Mapping[str, tf.keras.optimizers.legacy.Optimizer]) -> None:
    """Checks that a checkpoint holds the state of these optimizers.

    Args:
        path: prefix of a checkpoint that was written after the first step.
        optimizers: by their names in the checkpoint, with their variables created.

    Raises:
        CheckpointError: it has no state of an optimizer, or that of an optimizer of another kind.
    """
    keys = open_checkpoint(path).get_variable_to_shape_map()
    for name, optimizer in optimizers.items():
        lacking = [
            slot for slot in optimizer.get_slot_names() if not any(f"{SLOT_MARK}{name}/{slot}/" in k for k in keys)
        ]
        if not lacking and not _different_settings(name, optimizer, keys):
            continue
        kind = type(optimizer).__name__.lstrip("_")
        what = f"{lacking[0]!r} of `{name}` ({kind})" if lacking else f"state of a {kind} as `{name}`"
        raise CheckpointError(
            f"{path} holds no {what}, so training cannot go on from it as if it had not stopped; the config's optimizer"
            " settings may have changed. To start anew from its weights, choose another experiment_name, with this"
            " checkpoint as model_options.initial_checkpoint"
        )


def _different_settings(name: str, optimizer: tf.keras.optimizers.legacy.Optimizer, keys: Iterable[str]) -> set[str]:
    """Names of the settings that only the optimizer or only the checkpoint has.

    Keras stores the settings of an optimizer (`beta_1`, `momentum`, ...) beside its slots; their names tell kinds of
    optimizers apart that have the same slots.
    """
    own = {setting for setting, value in optimizer._hyper.items() if isinstance(value, tf.Variable)}
    stored = {key.split("/")[1] for key in keys if key.startswith(f"{name}/")}
    return (own ^ stored) - _OF_ANY_KIND


def _remove_torn(prefix: str) -> None:
    """Frees the room that a checkpoint takes which could not be written; one that was written stays.

    The write may have succeeded and only the deletion of an older checkpoint failed.
    """
    with contextlib.suppress(tf.errors.OpError, OSError):
        files.remove_tree(f"{prefix}_temp")
        if not can_be_opened(prefix):
            for path in files.glob(f"{prefix}.*"):
                files.remove(path)
