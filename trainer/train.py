"""Trains and evaluates an experiment; the flags are DeepLab2's.

    python trainer/train.py --config_file=configs/coco/kmax_r50.textproto \
        --mode=train_and_eval --model_dir=runs --num_gpus=4 --override=train_dataset_options.batch_size=32
"""

from __future__ import annotations

import contextlib
import logging as std_logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from absl import app, flags, logging

if __name__ == "__main__" and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    # Run as a file of a checkout: let it find the package beside this folder, installed or not.
    sys.path[0] = os.path.dirname(sys.path[0])

from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import ConfigError, user_errors_as_one_line
from deeplab2_kmax.terminal import quiet_libraries
from deeplab2_kmax.trainer.garbage import no_garbage_collection

if TYPE_CHECKING:
    from deeplab2_kmax.protos import config_pb2

MODES = ("train", "eval", "train_and_eval", "continuous_eval")
DEFAULT_MODEL_DIR = "runs"


def run(
    config: config_pb2.ExperimentOptions,
    mode: str = "train",
    model_dir: str = DEFAULT_MODEL_DIR,
    num_gpus: int = 0,
    master: str | None = None,
) -> Mapping[str, float]:
    """Trains or evaluates the model of an experiment.

    Args:
        config: an experiment, see `deeplab2_kmax.config.load_config`.
        mode: "train"; "eval", once; "train_and_eval", every `eval_interval` steps; "continuous_eval", each checkpoint
            another process writes.
        model_dir: checkpoints, summaries and results go to the folder `<model_dir>/<experiment_name>`. If it holds a
            checkpoint, training goes on from there.
        num_gpus: GPUs of this machine to use; 0: the CPU.
        master: name or address of a Cloud TPU, in place of GPUs.

    Returns:
        The last evaluation's figures by their TensorBoard names, e.g. `evaluation/pq/PQ`; empty where nothing was
        evaluated.

    Raises:
        ConfigError, DataError, CheckpointError: something the user gave is missing or does not fit.
        TrainingError: the loss is no longer finite.
        StorageError: results cannot be written.
        KeyboardInterrupt: on Ctrl-C; SystemExit with status 143 on SIGTERM. A run that trains has saved a checkpoint.
    """
    quiet_libraries()
    with no_garbage_collection():
        from deeplab2_kmax.trainer.experiment import run_experiment

    return run_experiment(config, mode, model_dir, num_gpus, master)


def list_variables(config: config_pb2.ExperimentOptions) -> str:
    """A table of the model's variables: key in checkpoints, shape, optimizer, rate, whether it decays; and totals.

    Raises:
        ConfigError: the config cannot be built.
    """
    quiet_libraries()
    from deeplab2_kmax.trainer.optimizers.variable_table import variable_listing

    return variable_listing(config)


@contextlib.contextmanager
def _plain_notes() -> Iterator[None]:
    """Shows log messages as they are, without time and source."""
    handler = logging.get_absl_handler()
    formatter = handler.formatter
    handler.setFormatter(std_logging.Formatter("%(message)s"))
    try:
        yield
    finally:
        handler.setFormatter(formatter)


def define_flags() -> None:
    """Declares DeepLab2's flags, `--print_variables` and `--override`."""
    flags.DEFINE_string("config_file", None, "Text file of the experiment: an ExperimentOptions message.")
    flags.DEFINE_enum("mode", "train", MODES, "What to do.")
    flags.DEFINE_string(
        "model_dir", DEFAULT_MODEL_DIR, "Results go to the folder <model_dir>/<experiment_name of the config>."
    )
    flags.DEFINE_integer("num_gpus", 0, "GPUs to use; 0: the CPU.")
    flags.DEFINE_string("master", None, "Name or grpc:// address of a Cloud TPU, in place of GPUs.")
    flags.DEFINE_bool(
        "print_variables", False, "Print how each variable is updated (optimizer, rate, weight decay) and exit."
    )
    flags.DEFINE_multi_string("override", [], "field.sub_field=value on top of the config; may be given several times.")


def main(argv: Sequence[str]) -> None:
    """Runs what the flags ask for; a user's mistake ends in one line on stderr."""
    values = flags.FLAGS
    with user_errors_as_one_line():
        if len(argv) > 1:
            raise ConfigError(f"unexpected argument {argv[1]!r}; flags look like --mode=eval")
        if not values.config_file:
            raise ConfigError("which experiment? e.g. --config_file=configs/coco/kmax_r50.textproto")
        with _plain_notes():
            config = load_config(values.config_file, values.override)
        if not values["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
        if values.print_variables:
            print(list_variables(config))
            return
        try:
            run(config, values.mode, values.model_dir, values.num_gpus, values.master)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    define_flags()
    app.run(main)
