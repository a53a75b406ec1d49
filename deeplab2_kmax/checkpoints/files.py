"""Checkpoints as files: taking one to another folder, telling one from another, deleting one."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any, Protocol

import tensorflow as tf

_INDEX = ".index"


class CheckpointReader(Protocol):
    """The part of TensorFlow's reader of checkpoints that is used here; it has no public type."""

    def has_tensor(self, key: str) -> bool:
        """Whether the checkpoint holds a tensor of this name."""

    def get_tensor(self, key: str) -> Any:
        """Reads a tensor, as a NumPy array or, for a string, bytes."""

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """The shapes of all tensors by their names."""


def open_checkpoint(prefix: str) -> CheckpointReader:
    """A reader of the tensors in a checkpoint; `tf.train.load_checkpoint` that takes any prefix, also on `ram://`.

    Args:
        prefix: of one checkpoint, such as `model_dir/ckpt-150000`; see `resolve_checkpoint` for folders.

    Raises:
        tf.errors.OpError: the index is missing, damaged, or cannot be read.
    """
    # tf.train.load_checkpoint first asks whether the prefix is a folder, to look for its latest checkpoint.
    # TensorFlow's file system in memory says yes for every prefix, and then nothing is found.
    reader: CheckpointReader = tf.compat.v1.train.NewCheckpointReader(prefix)
    return reader


def link_checkpoint(path: str, folder: str) -> str:
    """Brings a checkpoint into `folder` under its own name: by hard links, or copies where the file system has none.

    The index, without which the rest is no checkpoint, comes last; a file of the same name is replaced as a whole.

    Args:
        path: prefix of the checkpoint.
        folder: made where missing.

    Returns:
        The prefix in `folder`.

    Raises:
        FileNotFoundError: the checkpoint is not there, or was deleted on the way.
        OSError: `folder` cannot be written to.
    """
    if not is_whole(path):
        raise FileNotFoundError(f"no such checkpoint, or not all of it: {path}")
    tf.io.gfile.makedirs(folder)
    try:
        for file in [*_data_files(path), path + _INDEX]:
            _bring(file, os.path.join(folder, os.path.basename(file)))
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(error.message) from error
    return os.path.join(folder, os.path.basename(path))


def is_whole(path: str) -> bool:
    """Whether all files of the checkpoint are there."""
    data = _data_files(path)
    return bool(data) and len(data) == int(data[0].rsplit("-of-")[-1]) and tf.io.gfile.exists(path + _INDEX)


def _data_files(path: str) -> list[str]:
    return sorted(tf.io.gfile.glob(f"{path}.data-*-of-*"))


def _bring(source: str, target: str) -> None:
    part = f"{target}.part"
    with contextlib.suppress(tf.errors.NotFoundError):
        tf.io.gfile.remove(part)
    try:
        os.link(source, part)
    except OSError:
        # No hard links here, or no local file at all; a file that is gone fails again.
        tf.io.gfile.copy(source, part)
    tf.io.gfile.rename(part, target, overwrite=True)
    with contextlib.suppress(tf.errors.NotFoundError):
        # Renaming does nothing where both names stand for the same file.
        tf.io.gfile.remove(part)


def name_latest(path: str) -> None:
    """Makes `path` what TensorFlow takes for the latest, and only, checkpoint of its folder, wherever that is moved."""
    folder, name = os.path.split(path)
    part = os.path.join(folder, "checkpoint.part")
    with tf.io.gfile.GFile(part, "w") as file:
        file.write(f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n')
    tf.io.gfile.rename(part, os.path.join(folder, "checkpoint"), overwrite=True)


def delete_checkpoint(path: str) -> None:
    """Deletes the files of a checkpoint; the index first, so that what is left is no checkpoint."""
    for file in [path + _INDEX, *_data_files(path)]:
        with contextlib.suppress(tf.errors.NotFoundError):
            tf.io.gfile.remove(file)


def fingerprint(path: str) -> str:
    """16 hexadecimal digits that two checkpoints share only if they hold the same values.

    A checkpoint's index holds a checksum of each of its tensors.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    try:
        with tf.io.gfile.GFile(path + _INDEX, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()[:16]
    except tf.errors.NotFoundError as error:
        raise FileNotFoundError(error.message) from error
