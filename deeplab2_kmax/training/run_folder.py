"""The folder of a run: who may write there, and the config that is kept there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from deeplab2_kmax import files
from deeplab2_kmax.config import config_to_text
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.folder_lock import hold_lock, holder
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.terminal import say_note

_CONFIG_FILE = "config.textproto"
_TRAINING_LOCK = ".training.lock"
_EVALUATION_LOCK = "eval/.lock"


def run_folder(model_dir: str, experiment_name: str) -> str:
    """The folder of a run, `experiment_name` below `model_dir`; for an empty name `model_dir` itself, as in DeepLab2.

    Raises:
        ConfigError: the name leads to another place.
    """
    if files.is_remote(experiment_name) or experiment_name.startswith("/") or ".." in experiment_name.split("/"):
        raise ConfigError(
            f"experiment_name: expected the name of a folder below --model_dir, got {experiment_name!r}; give the place"
            " of the folder as --model_dir"
        )
    return files.join(model_dir, experiment_name)


def write_config(config: config_pb2.ExperimentOptions, folder: str) -> None:
    """Keeps the config a model was trained with beside its checkpoints, as `config.textproto`."""
    files.write_text(files.join(folder, _CONFIG_FILE), config_to_text(config))


@contextlib.contextmanager
def only_trainer(folder: str) -> Iterator[None]:
    """Keeps other trainers out of `folder`, which exists, until the context ends. Evaluation is not kept out.

    Two trainers would write checkpoints of the same names and delete each other's.

    Raises:
        ConfigError: another process trains there.
        OSError: no lock can be made.
    """
    if files.is_remote(folder):
        # Remote storage has no locks that the death of a process would free.
        say_note(f"{folder} is remote and has no lock: make sure that nothing else trains there")
        yield
        return
    with _only_holder(
        files.join(folder, _TRAINING_LOCK),
        f"is training in {files.absolute(folder)}. Wait for it or stop it, or choose another model_dir or"
        " experiment_name",
    ):
        yield


@contextlib.contextmanager
def only_evaluator(folder: str) -> Iterator[None]:
    """Keeps a second continuous evaluation out of `folder` until the context ends. Training is not kept out.

    Raises:
        ConfigError: another process evaluates the checkpoints there.
        OSError: no lock can be made.
    """
    if files.is_remote(folder):
        yield
        return
    lock = files.join(folder, _EVALUATION_LOCK)
    files.make_folder(files.parent(lock))
    with _only_holder(lock, f"evaluates the checkpoints of {files.absolute(folder)} already"):
        yield


@contextlib.contextmanager
def _only_holder(lock: str, does: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        # Not `with hold_lock(lock)`: a BlockingIOError from within the context must not be taken for the lock's.
        try:
            stack.enter_context(hold_lock(lock))
        except BlockingIOError:
            raise ConfigError(f"model_dir: {holder(lock)} {does}") from None
        yield
