"""What each mode does with a run that has been built: train, evaluate, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from deeplab2_kmax.distribution import is_alone, sum_over_workers
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.input_pipeline import data_errors
from deeplab2_kmax.stop_signals import STOPPED
from deeplab2_kmax.terminal import say, say_warning
from deeplab2_kmax.training.evaluating.continuous_evaluation import evaluate_continuously
from deeplab2_kmax.training.evaluating.evaluation_results import EvaluationResults, settings_fingerprint
from deeplab2_kmax.training.run.run import Run
from deeplab2_kmax.training.run_folder import write_config
from deeplab2_kmax.wording import counted


def train(run: Run) -> Mapping[str, float]:
    """Trains to the last step; returns no figures."""
    # Before the first step, so that whatever a run leaves when it ends early has its config beside it.
    write_config(run.config, run.folder)
    train_until(run, run.total_steps)
    say(f"training is complete at step {run.global_step.numpy()}: {run.checkpoints.latest_checkpoint}")
    return {}


def train_and_evaluate(run: Run) -> Mapping[str, float]:
    """Trains, and evaluates every `eval_interval` steps and at the end; returns the last figures.

    Each evaluation is preceded by a checkpoint, so that it can be repeated and nothing is lost if it fails. A run that
    is started again evaluates at the same steps as one that was not stopped, and repeats an evaluation that was
    interrupted.
    """
    write_config(run.config, run.folder)
    total, interval = run.total_steps, run.config.evaluator_options.eval_interval
    results = _evaluation_results(run)
    while True:
        step, last = int(run.global_step.numpy()), run.checkpoints.latest_checkpoint
        # Else the run was stopped between this checkpoint, where an evaluation is due, and the result.
        if last is None or step % interval or _is_evaluated(last, results):
            train_until(run, min((step // interval + 1) * interval, total))
        averages = run.evaluated_averages
        with averages.in_the_model() if averages else contextlib.nullcontext():
            figures = evaluate(run)
        results.add(run.checkpoints.latest_checkpoint, int(run.global_step.numpy()), figures)
        if run.global_step.numpy() >= total:
            return figures


def evaluate_once(run: Run) -> Mapping[str, float]:
    """Evaluates the latest checkpoint, or initial_checkpoint if there is none."""
    run.checkpoints.restore_or_initialize()
    return evaluate(run)


def evaluate_each(run: Run) -> Mapping[str, float]:
    """Evaluates each checkpoint as it appears, up to that of the last step, or until no new one appears in time."""

    def restore_and_evaluate(path: str) -> Mapping[str, float]:
        run.checkpoints.restore(path)
        return evaluate(run)

    timeout = run.config.evaluator_options.continuous_eval_timeout
    return evaluate_continuously(
        run.folder,
        restore_and_evaluate,
        _evaluation_results(run),
        run.total_steps,
        timeout=None if timeout < 0 else timeout,
    )


def _is_evaluated(path: str, results: EvaluationResults) -> bool:
    """Whether a checkpoint has a result.

    Of several processes only the chief may know, since only its folder keeps results; all of them have to do the same,
    so they ask each other.
    """
    return bool(sum_over_workers(np.array(int(results.figures_of(path) is not None))))


def _evaluation_results(run: Run) -> EvaluationResults:
    return EvaluationResults(
        run.folder,
        run.config.evaluator_options.best_checkpoint_metric,
        run.controller.evaluator.figure_names,
        settings_fingerprint(run.config),
    )


def train_until(run: Run, step: int) -> None:
    """Trains up to `step` and saves a checkpoint there, or earlier if a signal or bad data stop training."""
    if run.training is None or run.global_step.numpy() >= step:
        return
    progress = run.training.progress
    try:
        progress.start()
        options = run.config.train_dataset_options
        with run.stop.steps(), run.stop.instead_of_errors(), data_errors(options, is_training=True):
            run.controller.train(step)
        progress.pause()
    except (*STOPPED, DataError) as error:
        # What has been learned so far is sound. Saving takes all of several processes: a signal stops all of them
        # (`CommonStop`), but bad data may stop only one, which would then wait for the others forever.
        if not isinstance(error, DataError) or is_alone(tf.distribute.get_strategy()):
            run.checkpoints.save(check_interval=False)
        raise
    finally:
        _tell_bad_records(run, "train")


def evaluate(run: Run) -> Mapping[str, float]:
    """Evaluates the model with its present weights; returns the figures by their TensorBoard names."""
    try:
        with run.stop.instead_of_errors(), data_errors(run.config.eval_dataset_options, is_training=False):
            figures: Mapping[str, float] = run.controller.evaluate(run.config.evaluator_options.eval_steps)
            run.loggers.scalars(int(run.global_step.numpy()), {f"eval/{name}": figures[name] for name in figures})
            return figures
    finally:
        _tell_bad_records(run, "eval")


def _tell_bad_records(run: Run, which: str) -> None:
    bad_records = run.bad_records[which]
    if number := len(bad_records):
        say_warning(f"{counted(number, 'record')} of the {which} data left out:\n{bad_records.listing()}")
