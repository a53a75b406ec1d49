"""Removes what a run that was killed while it wrote a checkpoint left in its folder."""

from __future__ import annotations

import re

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.files import INDEX, STATE_FILE, name_latest, open_checkpoint
from deeplab2_kmax.checkpoints.integrity import (
    last_whole_checkpoint,
    numbered_checkpoints,
    recorded_checkpoints,
    step_in_name,
)
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.terminal import say
from deeplab2_kmax.wording import wrapped

# Temporary files of TensorFlow, and those with a fixed name that earlier versions of this package wrote.
_TEMPORARY = re.compile(r"ckpt-\d+_temp|checkpoint\.tmp[0-9a-f]{32}|checkpoint\.part")
_PART = re.compile(r"(ckpt-\d+)\.(index|data-\d{5}-of-\d{5})")


def clear_leftovers(folder: str) -> None:
    """Removes the files of checkpoints whose writing was interrupted; makes the state file name the last whole one.

    Only the one process that trains in the folder may call this. In remote folders nothing is removed, because there
    no lock tells whether another process is writing. A damaged checkpoint that the state file names is kept as well.

    Args:
        folder: the run's folder; it exists.

    Raises:
        CheckpointError: there are checkpoints, but none of them is whole.
        OSError: the folder cannot be written to.
    """
    last = last_whole_checkpoint(folder)
    recorded = recorded_checkpoints(folder)
    if last is not None and recorded[:1] != [last]:
        _record(folder, last)
        say(f"the newest whole checkpoint is {last}; {files.join(folder, STATE_FILE)} names it now")
    if files.is_remote(folder):
        return
    # Once a checkpoint is whole, the state file names it. So a damaged checkpoint that a readable state file does not
    # name was never whole; without such a file, it may have been, and is kept.
    remove_damaged = last is None or bool(recorded)
    removed = [
        name for name in files.list_folder(folder) if _is_leftover(folder, name, {last, *recorded}, remove_damaged)
    ]
    for name in removed:
        path = files.join(folder, name)
        if files.is_folder(path):
            files.remove_tree(path)
        else:
            files.remove(path)
    if removed:
        names = ", ".join(removed)
        say(wrapped(f"removed what an interrupted write of a checkpoint left behind: {names}", indent="    "))


def can_be_opened(prefix: str) -> bool:
    """Whether a checkpoint has an index that TensorFlow can read."""
    try:
        open_checkpoint(prefix)
    except CheckpointError:
        return False
    return True


def _is_leftover(folder: str, name: str, known: set[str | None], remove_damaged: bool) -> bool:
    """Whether the file `name` is temporary or part of a checkpoint that was never finished."""
    if _TEMPORARY.fullmatch(name) or files.is_unfinished(name):
        return True
    part = _PART.fullmatch(name)
    if not part or (prefix := files.join(folder, part[1])) in known:
        return False
    # TensorFlow writes the index last: an index that can be read means that the data were written before it.
    if not files.exists(prefix + INDEX):
        return True
    return remove_damaged and not can_be_opened(prefix)


def _record(folder: str, last: str) -> None:
    """Writes the state file as TensorFlow does: `last` as the newest checkpoint, and all those of earlier steps."""
    found = {*recorded_checkpoints(folder), *numbered_checkpoints(folder)}
    older = sorted((path for path in found if step_in_name(path) < step_in_name(last)), key=step_in_name)
    name_latest(last, older)
