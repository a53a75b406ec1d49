"""What has to be true before anything is built: the data is there, and results can be written."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator

import tensorflow as tf

from deeplab2_kmax.config import config_to_text
from deeplab2_kmax.errors import ConfigError, DataError
from deeplab2_kmax.folder_lock import hold_lock, holder
from deeplab2_kmax.input_pipeline import PipelineSettings
from deeplab2_kmax.protos import config_pb2, dataset_pb2
from deeplab2_kmax.records.shards import find_shards
from deeplab2_kmax.terminal import say

_CONFIG_FILE = "config.textproto"
_LOCK = ".training.lock"


def require_data(options: dataset_pb2.DatasetOptions, field: str, is_training: bool) -> None:
    """Raises ConfigError or DataError, starting with `field`, where the records of a data set are not there."""
    try:
        settings = PipelineSettings.from_config(options, is_training)
        find_shards(settings.file_patterns, settings.descriptor.name)
    except (ConfigError, DataError) as error:
        raise type(error)(f"{field}: {error}") from error


def require_plain_path(folder: str) -> None:
    """Raises ConfigError where TensorFlow would not find again the checkpoints it wrote to `folder`."""
    if re.search(r"[*?\[\]\\]", folder):
        raise ConfigError(
            f"model_dir: TensorFlow takes {folder} for a pattern and would not find checkpoints in it; choose a path"
            " without * ? [ ] and \\"
        )


def require_writable(folder: str) -> None:
    """Makes `folder` if need be and makes sure that files can be written there.

    Raises:
        ConfigError: they cannot.
    """
    try:
        tf.io.gfile.makedirs(folder)
        if "://" not in folder:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "message", None) or error
        raise ConfigError(f"model_dir: cannot write to {os.path.abspath(folder)}: {reason}") from error


def write_config(config: config_pb2.ExperimentOptions, folder: str) -> None:
    """Keeps the config a model was trained with beside its checkpoints, as `config.textproto`."""
    path = os.path.join(folder, _CONFIG_FILE)
    with tf.io.gfile.GFile(f"{path}.part", "w") as file:
        file.write(config_to_text(config))
    tf.io.gfile.rename(f"{path}.part", path, overwrite=True)


@contextlib.contextmanager
def alone_in(folder: str) -> Iterator[None]:
    """Keeps other trainers out of `folder`, which exists, until the context ends. Evaluation is not kept out.

    Raises:
        ConfigError: another process trains there.
        OSError: no lock can be made.
    """
    if "://" in folder:
        say(f"{folder} is remote and has no lock: make sure that nothing else trains there")
        yield
        return

    def refusal(other: str) -> str:
        return (
            f"model_dir: {other} is training in {os.path.abspath(folder)}. Wait for it or stop it, or choose"
            " another model_dir or experiment_name"
        )

    with only_holder(os.path.join(folder, _LOCK), refusal):
        yield


@contextlib.contextmanager
def only_holder(lock: str, refusal: Callable[[str], str]) -> Iterator[None]:
    """Holds the lock file `lock` until the context ends.

    Raises:
        ConfigError: another process holds it; the message is what `refusal` makes of that process' name.
        OSError: no lock can be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(lock))
        except BlockingIOError:
            raise ConfigError(refusal(holder(lock))) from None
        yield
