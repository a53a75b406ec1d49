"""What each mode of a run does with an experiment that is ready: train, evaluate, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from deeplab2_kmax.distribution import is_alone, sum_over_workers
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.input_pipeline import data_errors
from deeplab2_kmax.terminal import say
from deeplab2_kmax.training.evaluating.continuous_evaluation import evaluate_continuously
from deeplab2_kmax.training.evaluating.evaluation_results import EvaluationResults, settings_fingerprint
from deeplab2_kmax.training.run.run import Run
from deeplab2_kmax.training.run.run_folder import write_config
from deeplab2_kmax.training.run.stop_signals import STOPPED


def train(run: Run) -> None:
    """Trains to the last step."""
    write_config(run.config, run.folder)
    train_until(run, run.total_steps)
    say(f"training is complete at step {run.global_step.numpy()}: {run.checkpoints.latest_checkpoint}")


def train_and_evaluate(run: Run) -> Mapping[str, float]:
    """Trains, and evaluates every `eval_interval` steps and at the end; returns the last figures.

    Each evaluation is preceded by a checkpoint, so that it can be repeated and nothing is lost if it fails. A run that
    is started again evaluates at the same steps as one that was not stopped, and makes up for the evaluation it was
    stopped in.
    """
    write_config(run.config, run.folder)
    total, interval = run.total_steps, run.config.evaluator_options.eval_interval
    filed = _evaluation_results(run)
    while True:
        step, last = int(run.global_step.numpy()), run.checkpoints.latest_checkpoint
        if last is None or step % interval or _is_evaluated(last, filed):
            train_until(run, min((step // interval + 1) * interval, total))
        averages = run.evaluated_averages
        with averages.in_the_model() if averages else contextlib.nullcontext():
            results = evaluate(run)
        filed.add(run.checkpoints.latest_checkpoint, int(run.global_step.numpy()), results)
        if run.global_step.numpy() >= total:
            return results


def evaluate_once(run: Run) -> Mapping[str, float]:
    """Evaluates the latest checkpoint, or initial_checkpoint where there is none."""
    run.checkpoints.restore_or_initialize()
    return evaluate(run)


def evaluate_each(run: Run) -> Mapping[str, float]:
    """Evaluates each checkpoint as it appears, until the last step's or until none comes for the time allowed."""

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


def _is_evaluated(path: str, filed: EvaluationResults) -> bool:
    """Whether there are results of a checkpoint; of several processes only the chief may know, and all have to ask."""
    return bool(sum_over_workers(np.array(int(filed.figures_of(path) is not None))))


def _evaluation_results(run: Run) -> EvaluationResults:
    return EvaluationResults(
        run.folder,
        run.config.evaluator_options.best_checkpoint_metric,
        run.controller.evaluator.figure_names,
        settings_fingerprint(run.config),
    )


def train_until(run: Run, step: int) -> None:
    """Trains up to `step` and saves a checkpoint there, or where a signal or bad data stop training before that."""
    if run.global_step.numpy() >= step:
        return
    try:
        run.progress.start()
        options = run.config.train_dataset_options
        with run.stop.steps(), run.stop.instead_of_errors(), data_errors(options, is_training=True):
            run.controller.train(step)
        run.progress.pause()
    except (*STOPPED, DataError) as error:
        # What has been learnt up to here is sound. Of several processes all have to save, and data may stop only one.
        if not isinstance(error, DataError) or is_alone(tf.distribute.get_strategy()):
            run.checkpoints.save(check_interval=False)
        raise
    finally:
        _tell_bad_records(run, "train")


def evaluate(run: Run) -> Mapping[str, float]:
    """Evaluates the weights as they are; returns the figures by their TensorBoard names."""
    try:
        with run.stop.instead_of_errors(), data_errors(run.config.eval_dataset_options, False):
            return run.controller.evaluate(run.config.evaluator_options.eval_steps)
    finally:
        _tell_bad_records(run, "eval")


def _tell_bad_records(run: Run, which: str) -> None:
    bad_records = run.bad_records[which]
    if len(bad_records):
        say(f"{len(bad_records)} record(s) of the {which} data left out:\n{bad_records.listing()}")
