"""What a run that died while it wrote a checkpoint left in its folder."""

from __future__ import annotations

import os
import re
import time

import tensorflow as tf
from google.protobuf import text_format
from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

from deeplab2_kmax.checkpoints.files import open_checkpoint
from deeplab2_kmax.checkpoints.integrity import (
    last_whole_checkpoint,
    numbered_checkpoints,
    recorded_checkpoints,
    step_in_name,
)
from deeplab2_kmax.terminal import say

_TEMPORARY = re.compile(r"ckpt-\d+_temp|checkpoint\.tmp[0-9a-f]{32}|checkpoint\.part")
_PART = re.compile(r"(ckpt-\d+)\.(index|data-\d{5}-of-\d{5})")


def clear_leftovers(folder: str) -> None:
    """Removes the files of checkpoints whose writing was interrupted; makes the state file name the last whole one.

    Only for the one process that trains in the folder, which exists. In remote folders, where nobody knows who writes,
    nothing is removed; nor is a damaged checkpoint that was once recorded.

    Raises:
        CheckpointError: there are checkpoints, but none of them is whole.
        OSError, tf.errors.OpError: the folder cannot be written to.
    """
    last = last_whole_checkpoint(folder)
    recorded = recorded_checkpoints(folder)
    if last is not None and recorded[:1] != [last]:
        _record(folder, last)
        say(f"the newest checkpoint that is whole is {last}; {os.path.join(folder, 'checkpoint')} names it now")
    if "://" in folder:
        return
    # Without a state file that can be read nobody knows whether a torn one was once whole.
    torn_too = last is None or bool(recorded)
    removed = [name for name in sorted(os.listdir(folder)) if _is_leftover(folder, name, {last, *recorded}, torn_too)]
    for name in removed:
        remove(os.path.join(folder, name))
    if removed:
        say(f"removed what an interrupted write of a checkpoint left behind: {', '.join(removed)}")


def remove(path: str) -> None:
    """Deletes a file or a folder that may be gone already."""
    try:
        if tf.io.gfile.isdir(path):
            tf.io.gfile.rmtree(path)
        else:
            tf.io.gfile.remove(path)
    except tf.errors.NotFoundError:
        pass


def _is_leftover(folder: str, name: str, known: set[str | None], torn_too: bool) -> bool:
    if _TEMPORARY.fullmatch(name):
        return True
    part = _PART.fullmatch(name)
    if not part or (prefix := os.path.join(folder, part[1])) in known:
        return False
    # The index is written last: one that can be read says that the data are there.
    if not os.path.exists(f"{prefix}.index"):
        return True
    return torn_too and not can_be_opened(prefix)


def can_be_opened(prefix: str) -> bool:
    """Whether a checkpoint has an index that TensorFlow can read."""
    try:
        open_checkpoint(prefix)
    except (tf.errors.OpError, ValueError, RuntimeError):
        return False
    return True


def _record(folder: str, last: str) -> None:
    """Writes the state file, as TensorFlow does: `last`, and those before it, which count as older ones."""
    found = {*recorded_checkpoints(folder), *numbered_checkpoints(folder)}
    older = sorted((path for path in found if step_in_name(path) < step_in_name(last)), key=step_in_name)
    names = [os.path.relpath(path, folder) for path in [*older, last]]
    now = time.time()
    state = CheckpointState(
        model_checkpoint_path=names[-1],
        all_model_checkpoint_paths=names,
        all_model_checkpoint_timestamps=[now] * len(names),
        last_preserved_timestamp=now - 1,
    )
    part = os.path.join(folder, "checkpoint.part")
    with tf.io.gfile.GFile(part, "w") as file:
        file.write(text_format.MessageToString(state))
    tf.io.gfile.rename(part, os.path.join(folder, "checkpoint"), overwrite=True)
