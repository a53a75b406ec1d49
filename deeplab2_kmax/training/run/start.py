"""Starts a run: checks it, takes its folder and devices, builds it, and does what its mode asks for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping

from deeplab2_kmax.checkpoints.cleanup import clear_leftovers
from deeplab2_kmax.config import require_supported
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.terminal import say
from deeplab2_kmax.training.distribution.cluster import cluster_of_environment
from deeplab2_kmax.training.distribution.multi_worker import own_place
from deeplab2_kmax.training.distribution.strategy import create_strategy
from deeplab2_kmax.training.mode import Mode
from deeplab2_kmax.training.reporting.progress import quiet_orbit
from deeplab2_kmax.training.run import modes
from deeplab2_kmax.training.run.run import Run
from deeplab2_kmax.training.run.run_checks import check_run, check_strategy
from deeplab2_kmax.training.run.run_folder import alone_in
from deeplab2_kmax.training.run.stop_signals import STOPPED, StopSignals, name_of
from deeplab2_kmax.training.run.storage_errors import storage_errors
from deeplab2_kmax.training.step.tracing import no_garbage_collection

_WORK: dict[Mode, Callable[[Run], Mapping[str, float] | None]] = {
    Mode.TRAIN: modes.train,
    Mode.EVAL: modes.evaluate_once,
    Mode.TRAIN_AND_EVAL: modes.train_and_evaluate,
    Mode.CONTINUOUS_EVAL: modes.evaluate_each,
}


def start(
    config: config_pb2.ExperimentOptions, mode: Mode, model_dir: str, num_gpus: int = 0, master: str | None = None
) -> Mapping[str, float]:
    """Runs an experiment; `deeplab2_kmax.training.run_experiment` says what goes in, comes out and can go wrong."""
    require_supported(config)
    folder = os.path.join(model_dir, config.experiment_name)
    cluster = cluster_of_environment()
    if cluster and mode is Mode.CONTINUOUS_EVAL:
        raise ConfigError("mode: continuous_eval takes one process; unset the environment variable TF_CONFIG")
    check_run(config, mode, folder)
    with StopSignals() as stop, storage_errors(folder), contextlib.ExitStack() as stack:
        own_folder = stack.enter_context(own_place(cluster, folder))
        if mode.trains:
            stack.enter_context(alone_in(own_folder))
            clear_leftovers(own_folder)
        strategy = create_strategy(num_gpus, master, cluster)
        stop.renew()
        check_strategy(config, mode, strategy)
        stack.enter_context(strategy.scope())
        stack.enter_context(quiet_orbit())
        run = None
        try:
            with no_garbage_collection():
                run = Run(config, mode, own_folder, strategy, stop, shared_folder=folder)
            return _WORK[mode](run) or {}
        except STOPPED as error:
            say(_stopped(name_of(error), run))
            raise


def _stopped(signal: str, run: Run | None) -> str:
    """Where a run was stopped, and what it goes on from."""
    if run is None or run.progress is None:
        return f"stopped by {signal}: there was nothing to save"
    step, last = run.global_step.numpy(), run.checkpoints.latest_checkpoint
    saved = f"the same command goes on from {last}" if last else "there was nothing to save yet"
    return f"stopped by {signal} at step {step}: {saved}"
