"""Starts a run: checks it, takes its folder and devices, builds it, and does what its mode asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from deeplab2_kmax.checkpoints.cleanup import clear_leftovers
from deeplab2_kmax.config import require_supported
from deeplab2_kmax.config.problems import refuse
from deeplab2_kmax.config.value_ranges import range_problems
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.stop_signals import STOPPED, StopSignals, mark_told, name_of
from deeplab2_kmax.storage_errors import storage_errors
from deeplab2_kmax.terminal import say, say_note
from deeplab2_kmax.training.distribution.cluster import cluster_of_environment
from deeplab2_kmax.training.distribution.lost_workers import lost_workers
from deeplab2_kmax.training.distribution.multi_worker import own_folder
from deeplab2_kmax.training.distribution.strategy import create_strategy, idle_gpus
from deeplab2_kmax.training.mode import Mode
from deeplab2_kmax.training.reporting.progress import quiet_orbit
from deeplab2_kmax.training.run import modes
from deeplab2_kmax.training.run.run import Run
from deeplab2_kmax.training.run.run_checks import check_run, check_strategy
from deeplab2_kmax.training.run_folder import only_trainer, run_folder
from deeplab2_kmax.training.step.tracing import no_garbage_collection

_WORK: dict[Mode, Callable[[Run], Mapping[str, float]]] = {
    Mode.TRAIN: modes.train,
    Mode.EVAL: modes.evaluate_once,
    Mode.TRAIN_AND_EVAL: modes.train_and_evaluate,
    Mode.CONTINUOUS_EVAL: modes.evaluate_each,
}


def start(
    config: config_pb2.ExperimentOptions, mode: Mode, model_dir: str, num_gpus: int = 0, master: str | None = None
) -> Mapping[str, float]:
    """Runs an experiment.

    `deeplab2_kmax.training.run_experiment` documents arguments, result and errors.
    """
    require_supported(config)
    refuse(range_problems(config))  # It may have been made in code, which nothing has checked.
    folder = run_folder(model_dir, config.experiment_name)
    cluster = cluster_of_environment()
    if cluster and mode is Mode.CONTINUOUS_EVAL:
        raise ConfigError("mode: continuous_eval takes one process; unset the environment variable TF_CONFIG")
    check_run(config, mode, folder)
    # Signals first: SIGTERM then unwinds this block, so that locks and temporary folders are given up.
    with StopSignals() as stop, storage_errors(folder), contextlib.ExitStack() as stack:
        own = stack.enter_context(own_folder(cluster, folder))
        if mode.trains:
            # The lock first: what looks like the leftovers of a killed run may be a write of one that is alive.
            stack.enter_context(only_trainer(own))
            clear_leftovers(own)
        strategy = create_strategy(num_gpus, master, cluster)
        stack.enter_context(lost_workers(cluster, folder))
        stop.renew()  # Joining a cluster, TensorFlow takes SIGTERM for itself.
        check_strategy(config, mode, strategy)
        if idle := idle_gpus(num_gpus, master):
            say_note(idle)
        stack.enter_context(strategy.scope())
        stack.enter_context(quiet_orbit())
        run, complete = None, False
        try:
            with no_garbage_collection():
                run = Run(config, mode, own, strategy, stop, shared_folder=folder)
            figures = _WORK[mode](run)
            complete = True
            return figures
        except STOPPED as error:
            say(_stopped(name_of(error), run))
            mark_told(error)
            raise
        finally:
            if run is not None:
                run.loggers.end(complete)


def _stopped(signal: str, run: Run | None) -> str:
    """A line that says at which step a run was stopped, and from which checkpoint it can go on."""
    if run is None or not run.mode.trains:
        return f"stopped by {signal}: there was nothing to save; the same command starts anew"
    step, last = run.global_step.numpy(), run.checkpoints.latest_checkpoint
    saved = f"the same command goes on from {last}" if last else "nothing was saved yet; the same command starts anew"
    return f"stopped by {signal} at step {step}: {saved}"
