"""What has to be true before anything is built: the data is there, and results can be written."""

from __future__ import annotations

import os
import tempfile

import tensorflow as tf

from deeplab2_kmax.config import config_to_text
from deeplab2_kmax.errors import ConfigError, DataError
from deeplab2_kmax.input_pipeline import PipelineSettings
from deeplab2_kmax.input_pipeline.shards import find_shards
from deeplab2_kmax.protos import config_pb2, dataset_pb2

_CONFIG_FILE = "config.textproto"


def require_data(options: dataset_pb2.DatasetOptions, field: str, is_training: bool) -> None:
    """Raises ConfigError or DataError, starting with `field`, where the records of a data set are not there."""
    try:
        settings = PipelineSettings.from_config(options, is_training)
        find_shards(settings.file_patterns, settings.descriptor.name)
    except (ConfigError, DataError) as error:
        raise type(error)(f"{field}: {error}") from error


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
    with tf.io.gfile.GFile(os.path.join(folder, _CONFIG_FILE), "w") as file:
        file.write(config_to_text(config))
