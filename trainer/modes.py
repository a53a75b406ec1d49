"""What each mode of a run does with an experiment that is ready: train, evaluate, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.over_workers import is_alone, sum_over_workers
from deeplab2_kmax.input_pipeline import data_errors
from deeplab2_kmax.trainer.continuous_evaluation import evaluate_continuously
from deeplab2_kmax.trainer.evaluation_results import EvaluationResults, settings_fingerprint
from deeplab2_kmax.trainer.progress import say
from deeplab2_kmax.trainer.run_folder import write_config
from deeplab2_kmax.trainer.stop_signals import STOPPED

if TYPE_CHECKING:
    from deeplab2_kmax.protos import config_pb2
    from deeplab2_kmax.trainer.experiment import Experiment


def train(experiment: Experiment) -> None:
    """Trains to the last step."""
    write_config(experiment.config, experiment.folder)
    train_until(experiment, total_steps(experiment.config))
    say(f"training is complete at step {experiment.global_step.numpy()}: {experiment.checkpoints.latest_checkpoint}")


def train_and_evaluate(experiment: Experiment) -> Mapping[str, float]:
    """Trains, and evaluates every `eval_interval` steps and at the end; returns the last figures.

    Each evaluation is preceded by a checkpoint, so that it can be repeated and nothing is lost if it fails. A run that
    is started again evaluates at the same steps as one that was not stopped, and makes up for the evaluation it was
    stopped in.
    """
    write_config(experiment.config, experiment.folder)
    total, interval = total_steps(experiment.config), experiment.config.evaluator_options.eval_interval
    filed = _evaluation_results(experiment)
    while True:
        step, last = int(experiment.global_step.numpy()), experiment.checkpoints.latest_checkpoint
        if last is None or step % interval or _is_evaluated(last, filed):
            train_until(experiment, min((step // interval + 1) * interval, total))
        averages = experiment.evaluated_averages
        with averages.in_the_model() if averages else contextlib.nullcontext():
            results = evaluate(experiment)
        filed.add(experiment.checkpoints.latest_checkpoint, int(experiment.global_step.numpy()), results)
        if experiment.global_step.numpy() >= total:
            return results


def evaluate_once(experiment: Experiment) -> Mapping[str, float]:
    """Evaluates the latest checkpoint, or initial_checkpoint where there is none."""
    experiment.checkpoints.restore_or_initialize()
    return evaluate(experiment)


def evaluate_each(experiment: Experiment) -> Mapping[str, float]:
    """Evaluates each checkpoint as it appears, until the last step's or until none comes for the time allowed."""

    def restore_and_evaluate(path: str) -> Mapping[str, float]:
        experiment.checkpoints.restore(path)
        return evaluate(experiment)

    timeout = experiment.config.evaluator_options.continuous_eval_timeout
    return evaluate_continuously(
        experiment.folder,
        restore_and_evaluate,
        _evaluation_results(experiment),
        total_steps(experiment.config),
        timeout=None if timeout < 0 else timeout,
    )


def _is_evaluated(path: str, filed: EvaluationResults) -> bool:
    """Whether there are results of a checkpoint; of several processes only the chief may know, and all have to ask."""
    return bool(sum_over_workers(np.array(int(filed.figures_of(path) is not None))))


def _evaluation_results(experiment: Experiment) -> EvaluationResults:
    return EvaluationResults(
        experiment.folder,
        experiment.config.evaluator_options.best_checkpoint_metric,
        experiment.controller.evaluator.figure_names,
        settings_fingerprint(experiment.config),
    )


def total_steps(config: config_pb2.ExperimentOptions) -> int:
    """The step at which training ends."""
    return config.trainer_options.solver_options.training_number_of_steps


def train_until(experiment: Experiment, step: int) -> None:
    """Trains up to `step` and saves a checkpoint there, or where a signal or bad data stop training before that."""
    if experiment.global_step.numpy() >= step:
        return
    try:
        experiment.progress.start()
        options = experiment.config.train_dataset_options
        with experiment.stop.steps(), experiment.stop.instead_of_errors(), data_errors(options, is_training=True):
            experiment.controller.train(step)
        experiment.progress.pause()
    except (*STOPPED, DataError) as error:
        # What has been learnt up to here is sound. Of several processes all have to save, and data may stop only one.
        if not isinstance(error, DataError) or is_alone(tf.distribute.get_strategy()):
            experiment.checkpoints.save(check_interval=False)
        raise
    finally:
        _tell_bad_records(experiment, "train")


def evaluate(experiment: Experiment) -> Mapping[str, float]:
    """Evaluates the weights as they are; returns the figures by their TensorBoard names."""
    try:
        with experiment.stop.instead_of_errors(), data_errors(experiment.config.eval_dataset_options, False):
            return experiment.controller.evaluate(experiment.config.evaluator_options.eval_steps)
    finally:
        _tell_bad_records(experiment, "eval")


def _tell_bad_records(experiment: Experiment, which: str) -> None:
    bad_records = experiment.bad_records[which]
    if len(bad_records):
        say(f"{len(bad_records)} record(s) of the {which} data left out:\n{bad_records.listing()}")


MODES: dict[str, Callable[[Experiment], Mapping[str, float] | None]] = {
    "train": train,
    "eval": evaluate_once,
    "train_and_eval": train_and_evaluate,
    "continuous_eval": evaluate_each,
}
