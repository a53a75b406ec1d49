"""Training and evaluation of an experiment, as `trainer/train.py` and `deeplab2-kmax train` run it.

Start with `run_experiment` below, then `run.start`. The wings: `run` (a run from start to end), `step` (one training
step and the loop), `optimizers`, `checkpoints`, `distribution` (devices and machines), `reporting` (terminal and
TensorBoard), `evaluating` (evaluation as part of a run). Only `run` puts the others together; none of them imports it.
What several wings need lies beside them: `mode`, `run_folder`. The network, its losses and its metrics are not here but
in `deeplab2_kmax.model`, `.losses` and `.evaluation`.

This file needs no TensorFlow: the functions import what they need when they are called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.terminal import quiet_libraries
from deeplab2_kmax.training.mode import MODES, Mode

if TYPE_CHECKING:
    from deeplab2_kmax.protos import config_pb2

__all__ = ["DEFAULT_MODEL_DIR", "MODES", "Mode", "evaluate_checkpoint", "list_variables", "run_experiment"]

DEFAULT_MODEL_DIR = "runs"


def run_experiment(
    config: config_pb2.ExperimentOptions,
    mode: str = Mode.TRAIN,
    model_dir: str = DEFAULT_MODEL_DIR,
    num_gpus: int = 0,
    master: str | None = None,
) -> Mapping[str, float]:
    """Trains or evaluates the model of an experiment.

    Args:
        config: an experiment, see `deeplab2_kmax.config.load_config`.
        mode: "train"; "eval", to evaluate once; "train_and_eval", to evaluate every `eval_interval` steps and at the
            end; "continuous_eval", to evaluate each checkpoint that another process writes. See `Mode`.
        model_dir: checkpoints, summaries and results go to the folder `<model_dir>/<experiment_name>`. If it holds a
            checkpoint, training goes on from there.
        num_gpus: GPUs of this machine to use; 0: the CPU.
        master: name or address of a Cloud TPU, in place of GPUs.

    Returns:
        The figures of the last evaluation by their TensorBoard names, e.g. `evaluation/pq/PQ`; empty if nothing was
        evaluated.

    Raises:
        ConfigError, DataError, CheckpointError: something the user gave is missing or does not fit.
        TrainingError: losses or gradients are not finite.
        StorageError: results cannot be written.
        WorkerError: another process of the same run is gone.
        KeyboardInterrupt: on Ctrl-C; SystemExit with status 143 on SIGTERM. A run that trains has saved a checkpoint.
    """
    quiet_libraries()
    from deeplab2_kmax.training.step.tracing import no_garbage_collection

    with no_garbage_collection():
        # Imported here, so that this module can be imported without TensorFlow, which takes seconds.
        from deeplab2_kmax.training.run.start import start

    return start(config, Mode.of(mode), model_dir, num_gpus, master)


def evaluate_checkpoint(
    config: config_pb2.ExperimentOptions,
    checkpoint: str,
    output_dir: str,
    num_gpus: int = 0,
    master: str | None = None,
) -> Mapping[str, float]:
    """Evaluates one checkpoint, wherever it lies.

    Args:
        config: the experiment; its initial_checkpoint is set to the checkpoint.
        checkpoint: a checkpoint's prefix, or a folder, whose latest one is taken.
        output_dir: results go to the folder `<output_dir>/<experiment_name>`, which must not hold checkpoints itself.
        num_gpus: see `run_experiment`.
        master: see `run_experiment`.

    Returns:
        The figures, see `run_experiment`.

    Raises:
        ConfigError: the output folder holds checkpoints; and the errors of `run_experiment`.
    """
    quiet_libraries()
    from deeplab2_kmax.checkpoints import resolve_checkpoint
    from deeplab2_kmax.checkpoints.integrity import last_whole_checkpoint
    from deeplab2_kmax.training.run_folder import run_folder

    folder = run_folder(output_dir, config.experiment_name)
    if other := last_whole_checkpoint(folder):
        raise ConfigError(
            f"output_dir: {folder} holds checkpoints of its own ({other}), which would be evaluated in place of"
            f" {checkpoint}; choose another folder"
        )
    config.model_options.initial_checkpoint = resolve_checkpoint(checkpoint)
    return run_experiment(config, Mode.EVAL, output_dir, num_gpus, master)


def list_variables(config: config_pb2.ExperimentOptions) -> str:
    """A table of the model's variables: key in checkpoints, shape, optimizer, rate, weight decay; and totals.

    Raises:
        ConfigError: the config cannot be built.
    """
    quiet_libraries()
    from deeplab2_kmax.training.optimizers.variable_table import variable_listing

    return variable_listing(config)
