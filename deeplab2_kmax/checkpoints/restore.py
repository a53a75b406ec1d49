"""Loads and saves checkpoints in DeepLab2's layout: DeepLab2 reads what is saved here, and the other way round.

report = load_checkpoint(model, "model_dir/ckpt-150000")    # strict: every variable is found, every key is used
save_checkpoint(model, "out/ckpt")                          # DeepLab2 restores it
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.files import (
    INDEX,
    SLOT_MARK,
    STATE_FILE,
    VALUE_SUFFIX,
    open_checkpoint,
    sync_checkpoint,
)
from deeplab2_kmax.checkpoints.integrity import fault_of, last_whole_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.wording import counted, first_line, some_of

# Top-level item of a training checkpoint that holds the averaged weights, under the same keys as the weights.
AVERAGED_WEIGHTS = "averaged_weights"
# Top-level items of a training checkpoint that do not belong to the model.
_TRAINING_STATE = (
    "optimizer",
    "backbone_optimizer",
    AVERAGED_WEIGHTS,
    "weight_averaging",
    "loss_scale",
    "global_step",
    "save_counter",
    "_CHECKPOINTABLE_OBJECT_GRAPH",
)
_NAMED_AT_MOST = 8
# An error is to be read at a glance.
_NAMED_IN_REFUSAL = 2
# Attributes of a RestoreReport with keys that were not loaded -> what they mean, for `RestoreReport.in_full`.
_NOT_LOADED = {
    "missing": "variables of the model that the checkpoint lacks; they keep their values",
    "misshaped": "of another shape in the checkpoint than in the model; they keep their values",
    "unused": "in the checkpoint, but not in the model",
    "excluded": "left out on request; they keep their values",
}

# A node of the object tree: tf.train.Checkpoint for inner nodes, tf.Variable for leaves.
_Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RestoreReport:
    """Which variables were loaded from a checkpoint and which were not, as sorted DeepLab2 checkpoint keys.

    Attributes:
        path: the checkpoint that was read.
        loaded: variables that were assigned.
        missing: variables of the model that the checkpoint lacks.
        misshaped: variables whose shape differs from the checkpoint's, as "key: checkpoint shape -> model shape".
        unused: keys of the checkpoint that the model has no variable for (training state not counted).
        excluded: variables left out on request.
    """

    path: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    misshaped: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    @classmethod
    def of_shapes(
        cls, path: str, wanted: Mapping[str, Sequence[int]], stored: Mapping[str, Sequence[int]]
    ) -> RestoreReport:
        """Compares variables with the content of a file; those of equal key and shape count as loaded.

        Args:
            path: of the file.
            wanted: shapes of the variables by their keys.
            stored: shapes of the arrays in the file by their keys.
        """
        shared = sorted(wanted.keys() & stored.keys())
        fitting = [key for key in shared if tuple(stored[key]) == tuple(wanted[key])]
        misshaped = [key for key in shared if tuple(stored[key]) != tuple(wanted[key])]
        return cls(
            path=path,
            loaded=tuple(fitting),
            missing=tuple(sorted(wanted.keys() - stored.keys())),
            misshaped=tuple(f"{key}: {list(stored[key])} -> {list(wanted[key])}" for key in misshaped),
            unused=tuple(sorted(stored.keys() - wanted.keys())),
        )

    @property
    def complete(self) -> bool:
        """Whether model and checkpoint fit each other exactly."""
        return not (self.missing or self.misshaped or self.unused or self.excluded)

    def __str__(self) -> str:
        return self._listing("loaded")

    def refusal(self) -> str:
        """The report in the words of a restore that was refused, which has loaded nothing."""
        return self._listing("that fit, of which none was loaded", _NAMED_IN_REFUSAL)

    def _listing(self, what_of_the_fitting: str, at_most: int = _NAMED_AT_MOST) -> str:
        lines = [f"{self.path}: {counted(len(self.loaded), 'variable')} {what_of_the_fitting}"]
        lines += [
            f"{len(getattr(self, what))} {what}: {self.named(what, at_most)}"
            for what in _NOT_LOADED
            if getattr(self, what)
        ]
        return "\n    ".join(lines)

    def named(self, what: str, at_most: int = _NAMED_AT_MOST) -> str:
        """The first keys of one kind on one line; `what` is an attribute such as "missing"."""
        return some_of(getattr(self, what), at_most)

    def in_full(self) -> str:
        """All keys, one on a line: first those that were not loaded, by reason, then those that were."""
        lines = [f"{self.path}: {counted(len(self.loaded), 'variable')} loaded"]
        for what, meaning in {**_NOT_LOADED, "loaded": "assigned from the checkpoint"}.items():
            keys = getattr(self, what)
            lines += ["", f"{len(keys)} {what} ({meaning})", *(f"    {key}" for key in keys)]
        return "\n".join(lines) + "\n"


def checkpoint_items(model: tf.keras.Model) -> dict[str, tf.train.Checkpoint]:
    """The model's variables as DeepLab2's object tree, to be passed to `tf.train.Checkpoint(**items)`.

    The keys are DeepLab2's top-level items: encoder, pixel_decoder, transformer_decoder, pixel_space_head, ...
    """
    return object_tree(checkpoint_variables(model))


def object_tree(variables: Mapping[str, tf.Variable]) -> dict[str, tf.train.Checkpoint | tf.Variable]:
    """Turns variables by their keys into trees of objects, to be passed to `tf.train.Checkpoint(**items)`."""
    tree: _Tree = {}
    for key, variable in variables.items():
        *parents, leaf = key.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[leaf] = variable
    return {name: _as_checkpoint(node) for name, node in tree.items()}


def _as_checkpoint(node: _Tree | tf.Variable) -> tf.train.Checkpoint | tf.Variable:
    if isinstance(node, dict):
        return tf.train.Checkpoint(**{name: _as_checkpoint(child) for name, child in node.items()})
    return node


def resolve_checkpoint(path: files.StrPath) -> str:
    """The prefix of the checkpoint that a user names.

    Args:
        path: a prefix, or a folder, of which the last whole checkpoint is taken.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    path = os.fspath(path)
    is_folder = files.is_folder(path)
    prefix = last_whole_checkpoint(path) if is_folder else path
    if not prefix:
        raise CheckpointError(
            f"no checkpoint in the folder {path!r}: expected the file {STATE_FILE!r}, or files such as ckpt-100{INDEX}"
        )
    try:
        files.change_stamp(prefix + INDEX)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: no path, with a NUL in it.
        raise CheckpointError(f"no such checkpoint: {path!r} (looked for {prefix}{INDEX})") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {prefix}{INDEX}: {error.strerror}") from error
    return prefix


def holds_averages(path: str) -> bool:
    """Whether the checkpoint with the prefix `path` holds averaged weights."""
    keys = open_checkpoint(path).get_variable_to_shape_map()
    return any(key.startswith(f"{AVERAGED_WEIGHTS}/") for key in keys)


def load_checkpoint(
    model: tf.keras.Model,
    path: files.StrPath,
    partial: bool = False,
    exclude: Sequence[str] = (),
    averaged: bool = False,
) -> RestoreReport:
    """Assigns the variables of `model` from a checkpoint of DeepLab2 or of this package.

    Args:
        model: from `build_model`.
        path: checkpoint prefix, or a folder, of which the last whole checkpoint is taken.
        partial: load what fits and report the rest, instead of refusing a checkpoint that does not fit exactly.
        exclude: top-level items to leave as they are, e.g. "semantic_last_layer".
        averaged: load the averaged weights, which a run with `weight_average_decay` stores beside the weights.

    Returns:
        Which variables were loaded and which were not.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or it holds no averaged weights although `averaged` is
            set; without `partial`, some key is missing, unused or of another shape; with `partial`, nothing fits at
            all. No variable has been assigned then.
    """
    report = compare_checkpoint(model, path, exclude, averaged)
    if not partial and (report.missing or report.misshaped or report.unused):
        # Without a word about Python: most read this from a command. A single layer that differs is no other network.
        is_other = len(report.loaded) < len(report.missing) + len(report.misshaped)
        why = (
            "; it seems to be of another architecture, so name the config that it was trained with" if is_other else ""
        )
        raise CheckpointError(f"the checkpoint does not fit the model{why}\n    {report.refusal()}")
    if not report.loaded:
        raise CheckpointError(f"nothing in the checkpoint fits the model\n    {report.refusal()}")
    # Before the first variable is assigned: a file that is cut shows only when the tensors behind the cut are read.
    if fault := fault_of(report.path):
        raise CheckpointError(
            f"{report.path}: expected a whole checkpoint, got one whose files are cut or damaged ({fault}); copy it"
            " again, or take another. No variable was changed"
        )
    variables = checkpoint_variables(model)
    reader = open_checkpoint(report.path)
    # One variable at a time: never more than one of them is in memory twice.
    for key in report.loaded:
        variables[key].assign(reader.get_tensor(_place(averaged) + key + VALUE_SUFFIX))
    logging.info("%s", report)
    return report


def compare_checkpoint(
    model: tf.keras.Model, path: files.StrPath, exclude: Sequence[str] = (), averaged: bool = False
) -> RestoreReport:
    """Tells what `load_checkpoint` with `partial=True` would load and what it would not; assigns nothing.

    Args:
        model: as in `load_checkpoint`.
        path: as in `load_checkpoint`.
        exclude: as in `load_checkpoint`.
        averaged: as in `load_checkpoint`.

    Raises:
        CheckpointError: there is no readable checkpoint, or it holds no averaged weights although `averaged` is set.
    """
    prefix = resolve_checkpoint(path)
    shapes: Mapping[str, Sequence[int]] = open_checkpoint(prefix).get_variable_to_shape_map()
    if averaged:
        place = _place(averaged)
        shapes = {key[len(place) :]: shape for key, shape in shapes.items() if key.startswith(place)}
        if not shapes:
            raise CheckpointError(
                f"{prefix} holds no averaged weights: expected keys that start with {place}. Training"
                " with trainer_options.solver_options.weight_average_decay stores them"
            )
    return _compare(prefix, checkpoint_variables(model), shapes, exclude)


def _place(averaged: bool) -> str:
    return f"{AVERAGED_WEIGHTS}/" if averaged else ""


def _compare(
    prefix: str, variables: Mapping[str, tf.Variable], shapes: Mapping[str, Sequence[int]], exclude: Sequence[str]
) -> RestoreReport:
    stored = {
        key[: -len(VALUE_SUFFIX)]: shape
        for key, shape in shapes.items()
        if key.endswith(VALUE_SUFFIX) and SLOT_MARK not in key
    }
    wanted = {key: tuple(variable.shape) for key, variable in variables.items() if key.split("/")[0] not in exclude}
    excluded = variables.keys() - wanted.keys()
    # What is left out on request counts as used, and training state is expected in a checkpoint.
    ignored = [key for key in stored if key in excluded or key.split("/")[0] in _TRAINING_STATE]
    report = RestoreReport.of_shapes(prefix, wanted, {key: stored[key] for key in stored.keys() - set(ignored)})
    return dataclasses.replace(report, excluded=tuple(sorted(excluded)))


def save_checkpoint(model: tf.keras.Model, prefix: files.StrPath) -> str:
    """Writes the model's variables as a checkpoint in DeepLab2's layout.

    Args:
        model: from `build_model`.
        prefix: path without extension, local or remote; its folder is made where missing.

    Returns:
        The prefix.

    Raises:
        CheckpointError: the folder cannot be written to.
    """
    prefix = os.fspath(prefix)
    try:
        files.make_folder(files.parent(prefix))
        # Of a write that was killed. TensorFlow would write into this folder, and not delete it for what else is there.
        files.remove_tree(f"{prefix}_temp")
        path: str = tf.train.Checkpoint(**checkpoint_items(model)).write(prefix)
        sync_checkpoint(path)
    except (tf.errors.OpError, OSError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise CheckpointError(f"cannot write the checkpoint {prefix!r}: {reason}") from error
    return path
