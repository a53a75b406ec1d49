"""Checks before anything is built: the data and weights that a config names exist, and results can be written."""

from __future__ import annotations

import re

import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.errors import ConfigError, DataError
from deeplab2_kmax.input_pipeline import PipelineSettings
from deeplab2_kmax.pretrained_weights import require_pretrained_weights
from deeplab2_kmax.protos import config_pb2, dataset_pb2
from deeplab2_kmax.records.shards import find_shards
from deeplab2_kmax.training.checkpoints.initial_weights import pretrained_encoder, require_start
from deeplab2_kmax.training.distribution.strategy import require_batch_size, require_compilable
from deeplab2_kmax.training.mode import Mode
from deeplab2_kmax.training.step.accumulation import require_equal_parts
from deeplab2_kmax.training.step.non_finite import NonFinitePolicy


def check_run(config: config_pb2.ExperimentOptions, mode: Mode, folder: str) -> None:
    """Finds what would stop a run, before anything is built: data, weights to start from, a folder to write to.

    Args:
        config: the experiment.
        mode: what the run is for.
        folder: the run's folder; made if everything else is in order.

    Raises:
        ConfigError, DataError, CheckpointError: something is missing or does not fit.
    """
    options = config.model_options
    _require_filled_in("experiment_name", config.experiment_name)
    _require_filled_in("model_options.initial_checkpoint", options.initial_checkpoint)
    _require_plain_path(folder)
    if mode.trains:
        _require_data(config.train_dataset_options, "train_dataset_options", is_training=True)
    if mode.evaluates:
        _require_data(config.eval_dataset_options, "eval_dataset_options", is_training=False)
    if mode is not Mode.CONTINUOUS_EVAL:  # That one waits for checkpoints.
        require_start(folder, options.initial_checkpoint, training=mode.trains)
    if mode.trains and (pretrained := pretrained_encoder(folder, options)):
        _require_filled_in("model_options.backbone.pretrained_weights", pretrained)
        require_pretrained_weights(pretrained)
    if mode is Mode.TRAIN_AND_EVAL:
        _require_averages(config)
    # Last, so that a run which is refused leaves no folder behind.
    _require_writable(folder)


def check_strategy(config: config_pb2.ExperimentOptions, mode: Mode, strategy: tf.distribute.Strategy) -> None:
    """Finds what does not work with this many replicas.

    Raises:
        ConfigError: the batch cannot be shared among the replicas, or XLA cannot compile what they do.
    """
    if mode.trains:
        options, batch_size = config.trainer_options, config.train_dataset_options.batch_size
        require_batch_size(batch_size, strategy, "train_dataset_options.batch_size")
        require_equal_parts(batch_size, strategy.num_replicas_in_sync, options.gradient_accumulation_steps)
        NonFinitePolicy.from_options(options)
        if options.xla:
            require_compilable(strategy)


def _require_filled_in(field: str, value: str) -> None:
    if "${" in value:
        raise ConfigError(f"{field}: {value} is a placeholder; fill it in, or give --override={field}=...")


def _require_plain_path(folder: str) -> None:
    """Raises ConfigError if TensorFlow would not find again the checkpoints it wrote to `folder`.

    It looks for a checkpoint's files by a pattern that begins with the path.
    """
    if re.search(r"[*?\[\]\\]", folder):
        raise ConfigError(
            f"model_dir: TensorFlow takes {folder} for a pattern and would not find checkpoints in it; choose a path"
            " without * ? [ ] and \\"
        )


def _require_data(options: dataset_pb2.DatasetOptions, field: str, is_training: bool) -> None:
    """Raises ConfigError or DataError, starting with `field`, if the records of a data set are missing."""
    settings = PipelineSettings.from_options(options, is_training)  # Its errors name the field themselves.
    try:
        find_shards(settings.file_patterns, settings.descriptor.name)
    except DataError as error:
        raise DataError(f"{field}: {error}") from error


def _require_averages(config: config_pb2.ExperimentOptions) -> None:
    if config.evaluator_options.use_averaged_weights and not config.trainer_options.solver_options.weight_average_decay:
        raise ConfigError(
            "evaluator_options.use_averaged_weights: there are none to evaluate; set"
            " trainer_options.solver_options.weight_average_decay, e.g. to 0.9999"
        )


def _require_writable(folder: str) -> None:
    """Makes `folder` if it is missing; raises ConfigError if files cannot be written there."""
    try:
        files.require_writable(folder)
    except OSError as error:
        raise ConfigError(f"model_dir: cannot write to {files.absolute(folder)}: {error.strerror}") from error
