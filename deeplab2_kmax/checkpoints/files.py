"""Checkpoints as files: opening, telling apart, linking into another folder and deleting them."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Sequence
from typing import Any, Protocol

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

from deeplab2_kmax import files
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.wording import first_line

INDEX = ".index"
# TensorFlow's file beside the checkpoints of a folder that names the newest and those before it.
STATE_FILE = "checkpoint"
# How TensorFlow ends the key of a variable in an object-based checkpoint, and what marks an optimizer's slots.
VALUE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
SLOT_MARK = "/.OPTIMIZER_SLOT/"
# What TensorFlow raises where a checkpoint is damaged.
UNREADABLE = (tf.errors.OpError, ValueError, RuntimeError, IndexError)


class CheckpointReader(Protocol):
    """The methods of TensorFlow's checkpoint reader that are used here; its own type is not public."""

    def has_tensor(self, key: str) -> bool:
        """Whether the checkpoint holds a tensor of this name."""

    def get_tensor(self, key: str) -> Any:
        """Reads a tensor as a NumPy array; as bytes if it is a string."""

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """The shapes of all tensors by their names."""


def open_checkpoint(prefix: str) -> CheckpointReader:
    """Opens one checkpoint; unlike `tf.train.load_checkpoint`, it also works on `ram://`.

    Args:
        prefix: of one checkpoint, such as `model_dir/ckpt-150000`; see `resolve_checkpoint` for folders.

    Raises:
        CheckpointError: the index is missing, damaged, or cannot be read.
    """
    # tf.train.load_checkpoint first asks whether the prefix is a folder, to look for its latest checkpoint.
    # TensorFlow's file system in memory says yes for every prefix, and then nothing is found.
    try:
        reader: CheckpointReader = tf.compat.v1.train.NewCheckpointReader(prefix)
    except UNREADABLE as error:
        raise CheckpointError(f"{prefix}: not a readable checkpoint: {first_line(error)}") from error
    return reader


def link_checkpoint(path: str, folder: str) -> str:
    """Brings a checkpoint into `folder` under its own name, by hard links, or copies where links are impossible.

    Args:
        path: prefix of the checkpoint.
        folder: made where missing; files of the same name are replaced atomically.

    Returns:
        The prefix in `folder`.

    Raises:
        FileNotFoundError: the checkpoint does not exist, or was deleted meanwhile.
        OSError: `folder` cannot be written to.
    """
    if not is_whole(path):
        raise FileNotFoundError(f"no such checkpoint, or some of its files are missing: {path}")
    # The index comes last: without it the data are no checkpoint, so nobody takes a part for the whole.
    for file in [*_data_files(path), path + INDEX]:
        files.link_or_copy(file, files.join(folder, os.path.basename(file)))
    files.sync(folder)
    return files.join(folder, os.path.basename(path))


def is_whole(path: str) -> bool:
    """Whether all files of the checkpoint exist; their content is not read, see `integrity.fault_of`."""
    data = _data_files(path)
    return bool(data) and len(data) == int(data[0].rsplit("-of-")[-1]) and files.exists(path + INDEX)


def _data_files(path: str) -> list[str]:
    # No glob pattern, as a folder's name may hold brackets.
    data = re.compile(re.escape(os.path.basename(path)) + r"\.data-\d+-of-\d+")
    folder = files.parent(path)
    try:
        return [files.join(folder, name) for name in files.list_folder(folder or ".") if data.fullmatch(name)]
    except FileNotFoundError:
        return []


def sync_checkpoint(path: str) -> None:
    """Waits until a local checkpoint that TensorFlow has just written is on the disk, under its name."""
    for file in [*_data_files(path), path + INDEX]:
        files.sync(file)
    files.sync(files.parent(path))


def size_of(path: str) -> int:
    """The bytes that a checkpoint takes on the disk."""
    return sum(files.size(file) for file in [*_data_files(path), path + INDEX])


def name_latest(path: str, older: Sequence[str] = ()) -> None:
    """Writes the state file of the checkpoint's folder such that TensorFlow finds this checkpoint there as the newest.

    The names are relative to the folder, which may therefore be moved. A checkpoint of a local folder should be on the
    disk before (`sync_checkpoint`, `link_checkpoint`); the state file is when this returns.

    Args:
        path: prefix of the checkpoint.
        older: prefixes of the others in its folder, the oldest first.
    """
    folder = files.parent(path)
    # For two remote paths relpath only compares their parts, which serves as well.
    names = [os.path.relpath(each, folder or ".") for each in (*older, path)]
    now = time.time()
    state = CheckpointState(
        model_checkpoint_path=names[-1],
        all_model_checkpoint_paths=names,
        all_model_checkpoint_timestamps=[now] * len(names),
        # In the past, or tf.train.CheckpointManager, which compares it with the clock, warns that time ran backwards.
        last_preserved_timestamp=now - 1,
    )
    files.write_text(files.join(folder, STATE_FILE), text_format.MessageToString(state))
    files.sync(folder)


def delete_checkpoint(path: str) -> None:
    """Deletes the files of a checkpoint, the index first: if this is interrupted, the rest is not taken for one."""
    for file in [path + INDEX, *_data_files(path)]:
        files.remove(file)


def fingerprint(path: str) -> str:
    """16 hexadecimal digits that two checkpoints share only if they hold the same values.

    Raises:
        FileNotFoundError: there is no such checkpoint.
    """
    # A checkpoint's index holds a checksum of each of its tensors, so it stands for their values.
    return hashlib.sha256(files.read_bytes(path + INDEX)).hexdigest()[:16]
