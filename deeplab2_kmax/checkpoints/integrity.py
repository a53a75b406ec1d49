"""Which checkpoint of a folder is the last whole one.

TensorFlow writes the tensors into a folder `ckpt-<step>_temp`, moves the data file out of it, writes the index beside
it and, last, the file `checkpoint` that names the newest one. A process that dies on the way leaves files that no one
names; a disk that fails leaves named ones that cannot be read. Nothing here takes either for a checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator

import tensorflow as tf
from absl import logging
from google.protobuf import text_format
from tensorflow.python.training.checkpoint_state_pb2 import CheckpointState

from deeplab2_kmax.checkpoints.files import open_checkpoint
from deeplab2_kmax.errors import CheckpointError

_STATE = "checkpoint"
_INDEX = ".index"
_NAMED_AT_MOST = 3


def last_whole_checkpoint(directory: str) -> str | None:
    """The newest checkpoint of a folder that can be read to its last byte.

    That is the one its state file names, as always; where that one is damaged or gone, the one before, and so on;
    without a state file that can be read, the `ckpt-<step>` of the highest step. Each damaged one is named in a
    warning, once.

    Returns:
        Its prefix; None where there is no checkpoint, or only what an interrupted first write left.

    Raises:
        CheckpointError: there are checkpoints, but all of them are damaged; or they cannot be read for now.
    """
    faults = []
    for prefix in _newest_first(directory):
        fault = fault_of(prefix)
        if fault is None:
            return prefix
        faults.append(f"{prefix}: {fault}")
    if faults and tf.io.gfile.exists(os.path.join(directory, _STATE)):
        more = f"\n    and {len(faults) - _NAMED_AT_MOST} more" if len(faults) > _NAMED_AT_MOST else ""
        listing = "\n    ".join(faults[:_NAMED_AT_MOST]) + more
        raise CheckpointError(
            f"none of the checkpoints in {directory} is whole. To start anew, move them away, or choose another"
            f" experiment_name\n    {listing}"
        )
    return None


def fault_of(prefix: str) -> str | None:
    """Why a checkpoint cannot be used, or None: all of its tensors were read, and their checksums are right."""
    return _fault(prefix, _signature(prefix))


def recorded_checkpoints(directory: str) -> list[str]:
    """The prefixes that the folder's state file lists, the newest first; none where it is missing or torn."""
    try:
        with tf.io.gfile.GFile(os.path.join(directory, _STATE), "rb") as file:
            state = text_format.Parse(file.read(), CheckpointState())
    except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError, text_format.ParseError, UnicodeDecodeError):
        return []
    except tf.errors.OpError as error:
        raise CheckpointError(f"cannot read {os.path.join(directory, _STATE)}: {error.message}") from error
    names = [state.model_checkpoint_path, *reversed(state.all_model_checkpoint_paths)]
    return list(dict.fromkeys(os.path.join(directory, name) for name in names if name))


def numbered_checkpoints(directory: str) -> list[str]:
    """The prefixes `ckpt-<step>` that have an index in the folder, whole or not, lowest step first."""
    found = (re.fullmatch(rf"(ckpt-\d+){re.escape(_INDEX)}", name) for name in _names(directory))
    return sorted((os.path.join(directory, match[1]) for match in found if match), key=step_in_name)


def step_in_name(prefix: str) -> int:
    """The step that `.../ckpt-<step>` names; -1 where a prefix names none."""
    found = re.search(r"-(\d+)$", prefix)
    return int(found[1]) if found else -1


def _names(directory: str) -> list[str]:
    """What is in a folder; nothing where there is no folder."""
    try:
        return tf.io.gfile.listdir(directory)
    except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError):
        return []
    except tf.errors.OpError as error:
        raise CheckpointError(f"cannot read the folder {directory}: {error.message}") from error


def _newest_first(directory: str) -> Iterator[str]:
    recorded = recorded_checkpoints(directory)
    yield from recorded[:1]
    # Looked for only where the one that is named will not do.
    others = {*recorded, *numbered_checkpoints(directory)}.difference(recorded[:1])
    yield from sorted(others, key=step_in_name, reverse=True)


def _signature(prefix: str) -> tuple:
    """What tells that files were changed since they were last read."""
    directory, name = os.path.split(prefix)
    files = sorted(os.path.join(directory, each) for each in _names(directory or ".") if each.startswith(f"{name}."))
    found = []
    for path in files:
        with contextlib.suppress(FileNotFoundError, tf.errors.NotFoundError):
            if "://" in path:
                stat = tf.io.gfile.stat(path)
                found.append((path, stat.length, stat.mtime_nsec))
            else:
                # TensorFlow knows times to the second only.
                stat = os.stat(path)
                found.append((path, stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(found)


@functools.lru_cache(maxsize=256)
def _fault(prefix: str, signature: tuple) -> str | None:
    fault = _find_fault(prefix, [path for path, *_ in signature])
    if fault is not None:
        logging.warning("not a whole checkpoint, left where it is and not used: %s: %s", prefix, fault)
    return fault


def _find_fault(prefix: str, files: list[str]) -> str | None:
    if prefix + _INDEX not in files:
        return "there is no such checkpoint" if not files else f"{os.path.basename(prefix)}{_INDEX} is gone"
    _require_access(files)
    try:
        reader = open_checkpoint(prefix)
        for key in reader.get_variable_to_shape_map():
            reader.get_tensor(key)
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        return str(error).strip().split("\n")[0] or type(error).__name__
    return None


def _require_access(files: list[str]) -> None:
    """A disk or a permission that fails for now is no damage: nothing may be trained over what it hides."""
    for path in files:
        try:
            with tf.io.gfile.GFile(path, "rb") as file:
                file.read(1)
        except tf.errors.NotFoundError:
            pass
        except tf.errors.OpError as error:
            raise CheckpointError(f"cannot read {path}: {error.message}") from error
