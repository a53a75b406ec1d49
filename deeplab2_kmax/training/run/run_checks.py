"""Checks before anything is built: the data and weights that a config names exist, and results can be written."""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections.abc import Iterator

import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.integrity import last_whole_checkpoint
from deeplab2_kmax.config.placeholders import require_filled_in
from deeplab2_kmax.errors import ConfigError, DataError, UserError
from deeplab2_kmax.input_pipeline import PipelineSettings
from deeplab2_kmax.pretrained_weights import require_pretrained_weights
from deeplab2_kmax.protos import config_pb2, dataset_pb2, model_pb2
from deeplab2_kmax.records.shards import find_whole_shards
from deeplab2_kmax.training.checkpoints.initial_weights import pretrained_encoder, require_start
from deeplab2_kmax.training.distribution.strategy import require_batch_size, require_compilable
from deeplab2_kmax.training.mode import Mode
from deeplab2_kmax.training.reporting.loggers.factory import require_loggers
from deeplab2_kmax.training.step.accumulation import require_equal_parts
from deeplab2_kmax.training.step.non_finite import NonFinitePolicy
from deeplab2_kmax.wording import counted


def check_run(config: config_pb2.ExperimentOptions, mode: Mode, folder: str) -> None:
    """Finds all that would stop a run, before anything is built: data, weights to start from, a folder to write to.

    Args:
        config: the experiment.
        mode: what the run is for.
        folder: the run's folder; made if everything else is in order.

    Raises:
        ConfigError, DataError, CheckpointError: something is missing or does not fit. The message lists all that is.
    """
    problems = _Problems()
    with problems.noted():
        require_filled_in(config, f"mode {mode.value}", _unused_fields(config, mode, folder))
    with problems.noted():
        _require_plain_path(folder)
    for name, is_training, is_used in (
        ("train_dataset_options", True, mode.trains),
        ("eval_dataset_options", False, mode.evaluates),
    ):
        options = getattr(config, name)
        # What is still a placeholder has been noted.
        if is_used and not _open(*options.file_pattern):
            with problems.noted():
                _require_data(options, name, is_training)
    with problems.noted():
        _require_weights(config.model_options, mode, folder)
    with problems.noted():
        require_loggers(config.trainer_options.loggers)
    if mode is Mode.TRAIN_AND_EVAL:
        with problems.noted():
            _require_averages(config)
    problems.refuse()
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


class _Problems:
    """Gathers the errors of several checks, so that they can be mended at once."""

    def __init__(self) -> None:
        self._errors: list[UserError] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Notes a UserError in place of raising it."""
        try:
            yield
        except UserError as error:
            self._errors.append(error)

    def refuse(self) -> None:
        """Raises the error that was noted; if there are several, one error that lists them."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            listing = "\n".join(textwrap.indent(str(error), "    ") for error in self._errors)
            raise ConfigError(f"{counted(len(self._errors), 'thing')} stop this run:\n{listing}")


def _unused_fields(config: config_pb2.ExperimentOptions, mode: Mode, folder: str) -> list[str]:
    """Paths of fields and messages that a run in this mode does not read."""
    # Without a name the run has no folder, and so no checkpoint in it.
    goes_on = not _open(config.experiment_name) and bool(last_whole_checkpoint(folder))
    unused = {
        "train_dataset_options": not mode.trains,
        "eval_dataset_options": not mode.evaluates,
        "model_options.initial_checkpoint": goes_on or mode is Mode.CONTINUOUS_EVAL,
        "model_options.backbone.pretrained_weights": goes_on or not mode.trains,
    }
    return [path for path, is_unused in unused.items() if is_unused]


def _open(*values: str) -> bool:
    """Whether one of the values has a placeholder."""
    return any("${" in value for value in values)


def _require_weights(options: model_pb2.ModelOptions, mode: Mode, folder: str) -> None:
    """Raises CheckpointError if the weights that a run starts from are missing."""
    # A folder that has no name yet holds no weights; the placeholder has been noted.
    if _open(options.initial_checkpoint) or (_open(folder) and not options.initial_checkpoint):
        return
    if mode is not Mode.CONTINUOUS_EVAL:  # That one waits for checkpoints.
        require_start(folder, options.initial_checkpoint, training=mode.trains)
    if mode.trains and (pretrained := pretrained_encoder(folder, options)) and not _open(pretrained):
        require_pretrained_weights(pretrained)


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
    """Raises ConfigError or DataError, starting with `field`, if the records of a data set are missing or cut."""
    settings = PipelineSettings.from_options(options, is_training)  # Its errors name the field themselves.
    try:
        find_whole_shards(settings.file_patterns, settings.descriptor.name, settings.max_bad_records > 0)
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
