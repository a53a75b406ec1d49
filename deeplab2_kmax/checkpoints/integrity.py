"""Finds the last checkpoint of a folder that can be read to its last byte.

TensorFlow writes the tensors into a folder `ckpt-<step>_temp`, moves the data file out of it, writes the index beside
it and, last, the state file `checkpoint` that names the newest checkpoint. A process that is killed in between leaves
files that the state file does not name; a failing disk leaves files that are named but cannot be read. Neither is taken
for a checkpoint here.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator

from absl import logging
from google.protobuf import text_format
from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.files import INDEX, STATE_FILE, UNREADABLE, open_checkpoint
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.wording import first_line, some_of

_NAMED_AT_MOST = 3
# For each file of a checkpoint its path and `files.change_stamp`.
_Signature = tuple[tuple[str, tuple[int, ...]], ...]


def last_whole_checkpoint(directory: str) -> str | None:
    """The newest checkpoint of a folder that can be read to its last byte.

    This is the one that the state file names, as in TensorFlow. If that one is damaged or gone, it is the one before,
    and so on; without a readable state file, the `ckpt-<step>` of the highest step. Each damaged checkpoint is named in
    a warning, once.

    Returns:
        Its prefix; None where there is no checkpoint, or only the remains of an interrupted first write.

    Raises:
        CheckpointError: there are checkpoints, but all of them are damaged; or they cannot be read at the moment.
    """
    faults = []
    for prefix in _newest_first(directory):
        fault = fault_of(prefix)
        if fault is None:
            return prefix
        faults.append(f"{prefix}: {fault}")
        _warn(prefix, fault)
    # Without a state file no checkpoint was ever finished: these are the remains of a first write.
    if faults and files.exists(files.join(directory, STATE_FILE)):
        raise CheckpointError(
            f"none of the checkpoints in {directory} is whole. To start anew, move them away, or choose another"
            f" experiment_name\n    {some_of(faults, _NAMED_AT_MOST, separator=chr(10) + '    ')}"
        )
    return None


def fault_of(prefix: str) -> str | None:
    """Why a checkpoint cannot be used; None if all of its tensors can be read and match their checksums."""
    return _fault(prefix, _signature(prefix))


def recorded_checkpoints(directory: str) -> list[str]:
    """The prefixes that the folder's state file lists, the newest first; none where it is missing or torn."""
    path = files.join(directory, STATE_FILE)
    try:
        state = text_format.Parse(files.read_bytes(path), CheckpointState())
    except (FileNotFoundError, NotADirectoryError, text_format.ParseError, UnicodeDecodeError):
        return []
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    names = [state.model_checkpoint_path, *reversed(state.all_model_checkpoint_paths)]
    return list(dict.fromkeys(files.join(directory, name) for name in names if name))


def numbered_checkpoints(directory: str) -> list[str]:
    """The prefixes `ckpt-<step>` that have an index in the folder, damaged ones included, lowest step first."""
    found = (re.fullmatch(rf"(ckpt-\d+){re.escape(INDEX)}", name) for name in _names(directory))
    return sorted((files.join(directory, match[1]) for match in found if match), key=step_in_name)


def step_in_name(prefix: str) -> int:
    """The step that `.../ckpt-<step>` names; -1 where a prefix names none."""
    found = re.search(r"-(\d+)$", prefix)
    return int(found[1]) if found else -1


def _names(directory: str) -> list[str]:
    """The names of what is in a folder; none where there is no such folder."""
    try:
        return files.list_folder(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"cannot read the folder {directory}: {error.strerror}") from error


def _newest_first(directory: str) -> Iterator[str]:
    recorded = recorded_checkpoints(directory)
    yield from recorded[:1]
    # Listing a remote folder takes long, so the others are looked for only if the caller asks for more than one.
    others = {*recorded, *numbered_checkpoints(directory)}.difference(recorded[:1])
    yield from sorted(others, key=step_in_name, reverse=True)


def _signature(prefix: str) -> _Signature:
    """The checkpoint's files with their change stamps; a different signature means that they were written anew."""
    directory, name = files.parent(prefix), os.path.basename(prefix)
    paths = sorted(files.join(directory, each) for each in _names(directory or ".") if each.startswith(f"{name}."))
    found = []
    for path in paths:
        try:
            found.append((path, files.change_stamp(path)))
        except FileNotFoundError:  # Deleted since the folder was listed.
            continue
    return tuple(found)


# Reading a checkpoint in full takes seconds, and a run asks about the same one several times. The signature is an
# argument so that files which changed are read again.
@functools.lru_cache(maxsize=256)
def _fault(prefix: str, signature: _Signature) -> str | None:
    return _find_fault(prefix, [path for path, _ in signature])


@functools.lru_cache(maxsize=256)
def _warn(prefix: str, fault: str) -> None:
    """Warns of a damaged checkpoint, once."""
    logging.warning("not a whole checkpoint, left where it is and not used: %s: %s", prefix, fault)


def _find_fault(prefix: str, paths: list[str]) -> str | None:
    if prefix + INDEX not in paths:
        return "there is no such checkpoint" if not paths else f"{os.path.basename(prefix)}{INDEX} is missing"
    _require_access(paths)
    try:
        reader = open_checkpoint(prefix)
        # TensorFlow compares a tensor with its checksum when it is read.
        for key in reader.get_variable_to_shape_map():
            reader.get_tensor(key)
    except CheckpointError as error:
        return str(error).removeprefix(f"{prefix}: ")
    except UNREADABLE as error:
        return first_line(error)
    return None


def _require_access(paths: list[str]) -> None:
    """Raises CheckpointError where a file cannot be read at the moment, for lack of permission or a failing disk.

    Such a checkpoint does not count as damaged: a run would start from an older one and train over what is hidden.
    """
    for path in paths:
        try:
            if kind := files.special_kind(path):  # Reading a pipe would wait for ever.
                raise CheckpointError(f"cannot read {path}: expected a file, got {kind}")
            with files.open_to_read(path) as file:
                file.read(1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
