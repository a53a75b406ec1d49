"""What a config asks for is there and goes together: looked at before anything is built."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.pretrained_weights import require_pretrained_weights
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.training.checkpoints.checkpointing import pretrained_encoder, require_start
from deeplab2_kmax.training.distribution.strategy import require_batch_size, require_compilable
from deeplab2_kmax.training.mode import Mode
from deeplab2_kmax.training.run.run_folder import require_data, require_plain_path, require_writable
from deeplab2_kmax.training.step.accumulation import require_equal_parts
from deeplab2_kmax.training.step.non_finite import NonFinitePolicy


def check_run(config: config_pb2.ExperimentOptions, mode: Mode, folder: str) -> None:
    """Finds what would stop the run, before anything is built: data, weights to start from, a folder to write to."""
    options = config.model_options
    _require_filled_in("experiment_name", config.experiment_name)
    _require_filled_in("model_options.initial_checkpoint", options.initial_checkpoint)
    require_plain_path(folder)
    if mode.trains:
        require_data(config.train_dataset_options, "train_dataset_options", is_training=True)
    if mode.evaluates:
        require_data(config.eval_dataset_options, "eval_dataset_options", is_training=False)
    if mode is not Mode.CONTINUOUS_EVAL:
        require_start(folder, options.initial_checkpoint, training=mode.trains)
    if mode.trains and (pretrained := pretrained_encoder(folder, options)):
        _require_filled_in("model_options.backbone.pretrained_weights", pretrained)
        require_pretrained_weights(pretrained)
    if mode is Mode.TRAIN_AND_EVAL:
        _require_averages(config)
    require_writable(folder)


def _require_averages(config: config_pb2.ExperimentOptions) -> None:
    if config.evaluator_options.use_averaged_weights and not config.trainer_options.solver_options.weight_average_decay:
        raise ConfigError(
            "evaluator_options.use_averaged_weights: there are none to evaluate; set"
            " trainer_options.solver_options.weight_average_decay, e.g. to 0.9999"
        )


def check_strategy(config: config_pb2.ExperimentOptions, mode: Mode, strategy: tf.distribute.Strategy) -> None:
    """Finds what does not go with this many replicas."""
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
