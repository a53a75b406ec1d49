"""Puts an experiment together from its config, and runs it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping

import orbit
import tensorflow as tf

from deeplab2_kmax.checkpoints import load_checkpoint
from deeplab2_kmax.config import require_supported
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.evaluation.evaluator import Evaluator
from deeplab2_kmax.evaluation.prediction_files import prediction_files
from deeplab2_kmax.evaluation.summary_pictures import SummaryPictures
from deeplab2_kmax.input_pipeline import BadRecords, build_dataset
from deeplab2_kmax.losses import build_loss
from deeplab2_kmax.model import build_model
from deeplab2_kmax.postprocessing import build_postprocessor
from deeplab2_kmax.pretrained_weights import load_pretrained_weights
from deeplab2_kmax.protos import config_pb2, dataset_pb2
from deeplab2_kmax.trainer.checkpointing import (
    RunCheckpoints,
    pretrained_encoder,
    step_of,
)
from deeplab2_kmax.trainer.cluster import cluster_of_environment
from deeplab2_kmax.trainer.debug_bundle import DebugBundles
from deeplab2_kmax.trainer.garbage import no_garbage_collection
from deeplab2_kmax.trainer.initial_weights import InitialCheckpoint, initial_weights
from deeplab2_kmax.trainer.leftovers import clear_leftovers
from deeplab2_kmax.trainer.loop import Trainer
from deeplab2_kmax.trainer.loss_scale import LossScale, build_loss_scale
from deeplab2_kmax.trainer.modes import MODES, total_steps
from deeplab2_kmax.trainer.non_finite import NonFinitePolicy, without_record_names
from deeplab2_kmax.trainer.optimizers import (
    Optimizers,
    WeightAverages,
    build_optimizers,
    build_weight_averages,
    learning_rate_factor,
    solver_settings,
)
from deeplab2_kmax.trainer.progress import Progress, duration, quiet_orbit, say
from deeplab2_kmax.trainer.run_checks import check_run, check_strategy
from deeplab2_kmax.trainer.run_folder import alone_in
from deeplab2_kmax.trainer.seeding import Seeding
from deeplab2_kmax.trainer.step import TrainStep
from deeplab2_kmax.trainer.step_clock import StepClock
from deeplab2_kmax.trainer.stop_signals import STOPPED, StopSignals, name_of
from deeplab2_kmax.trainer.storage_errors import storage_errors
from deeplab2_kmax.trainer.strategy import create_strategy, is_chief
from deeplab2_kmax.trainer.training_pictures import TrainingPictures
from deeplab2_kmax.trainer.training_summaries import TrainingSummaries
from deeplab2_kmax.trainer.workers import CommonStop, own_place, require_same_step
from deeplab2_kmax.whole_checkpoints import last_whole_checkpoint


@dataclasses.dataclass
class Experiment:
    """An experiment that is ready to run.

    Attributes:
        config: what it was built from.
        folder: where this process reads checkpoints and writes.
        global_step: int64 scalar variable.
        model: the network.
        checkpoints: where it starts from, and what it leaves behind.
        controller: orbit's outer loop.
        bad_records: what has been left out of the data, under "train" and "eval".
        progress: prints the lines of training; None where nothing is trained.
        evaluated_averages: averages of the weights, to be evaluated in their place; None: the weights are.
        stop: SIGTERM and Ctrl-C.
    """

    config: config_pb2.ExperimentOptions
    folder: str
    global_step: tf.Variable
    model: tf.keras.Model
    checkpoints: RunCheckpoints
    controller: orbit.Controller
    bad_records: Mapping[str, BadRecords]
    progress: Progress | None = None
    evaluated_averages: WeightAverages | None = None
    stop: StopSignals = dataclasses.field(default_factory=StopSignals)


def run_experiment(
    config: config_pb2.ExperimentOptions, mode: str, model_dir: str, num_gpus: int = 0, master: str | None = None
) -> Mapping[str, float]:
    """Runs an experiment; `deeplab2_kmax.trainer.train.run` documents the arguments, the result and the errors."""
    if mode not in MODES:
        raise ConfigError(f"mode: expected one of {', '.join(MODES)}; came {mode!r}")
    require_supported(config)
    folder = os.path.join(model_dir, config.experiment_name)
    cluster = cluster_of_environment()
    if cluster and mode == "continuous_eval":
        raise ConfigError("mode: continuous_eval takes one process; unset the environment variable TF_CONFIG")
    check_run(config, mode, folder)
    with StopSignals() as stop, storage_errors(folder), contextlib.ExitStack() as stack:
        own_folder = stack.enter_context(own_place(cluster, folder))
        if "train" in mode:
            stack.enter_context(alone_in(own_folder))
            clear_leftovers(own_folder)
        strategy = create_strategy(num_gpus, master, cluster)
        stop.renew()
        check_strategy(config, mode, strategy)
        stack.enter_context(strategy.scope())
        stack.enter_context(quiet_orbit())
        experiment = None
        try:
            with no_garbage_collection():
                experiment = build_experiment(config, mode, own_folder, strategy, stop, run_folder=folder)
            return MODES[mode](experiment) or {}
        except STOPPED as error:
            say(_stopped(name_of(error), experiment))
            raise


def _stopped(signal: str, experiment: Experiment | None) -> str:
    """Where a run was stopped, and what it goes on from."""
    if experiment is None or experiment.progress is None:
        return f"stopped by {signal}: there was nothing to save"
    step, last = experiment.global_step.numpy(), experiment.checkpoints.latest_checkpoint
    saved = f"the same command goes on from {last}" if last else "there was nothing to save yet"
    return f"stopped by {signal} at step {step}: {saved}"


def build_experiment(
    config: config_pb2.ExperimentOptions,
    mode: str,
    folder: str,
    strategy: tf.distribute.Strategy,
    stop: StopSignals | None = None,
    run_folder: str | None = None,
) -> Experiment:
    """Builds the model and all that `mode` needs, in the strategy's scope, and restores the weights.

    Args:
        config: the experiment.
        mode: what it is for.
        folder: where this process reads checkpoints and writes.
        strategy: where it computes.
        run_folder: the folder of the run, where several processes have one each.
    """
    say(f"experiment {config.experiment_name!r} in {os.path.abspath(folder)}; {describe(strategy)}")
    if "train" in mode:
        Seeding.from_options(config.trainer_options).begin()
    start = time.monotonic()
    model = build_model(config)
    seconds = duration(time.monotonic() - start)
    say(f"model {config.model_options.backbone.name} built in {seconds}: {model.count_params():,} weights")
    global_step = orbit.utils.create_global_step()
    bad_records = {
        "train": BadRecords(config.train_dataset_options.max_bad_records),
        "eval": BadRecords(config.eval_dataset_options.max_bad_records),
    }
    stop = stop or StopSignals()
    parts = _Parts(config, folder, run_folder or folder, strategy, model, global_step, bad_records, stop)
    optimizers = _build_optimizers(parts) if "train" in mode else None
    loss_scale = build_loss_scale(config.model_options.precision) if optimizers else None
    checkpoints = _build_checkpoints(parts, optimizers, loss_scale)
    averaged = config.evaluator_options.use_averaged_weights
    progress = summaries = None
    if optimizers:
        clock = StepClock(config.train_dataset_options.batch_size)
        progress = Progress(global_step, total_steps(config), clock)
        summaries = _training_summaries(parts, clock)
    controller = _build_controller(
        parts,
        _build_trainer(parts, optimizers, loss_scale, progress, summaries.fetch) if optimizers else None,
        _build_evaluator(parts) if "eval" in mode else None,
        # Evaluation restores by itself, since it may wait for a checkpoint or start from another folder's.
        checkpoints if optimizers else None,
        progress,
        summaries,
    )
    require_same_step(global_step)
    return Experiment(
        config=config,
        folder=folder,
        global_step=global_step,
        model=model,
        checkpoints=checkpoints,
        controller=controller,
        bad_records=bad_records,
        progress=progress,
        evaluated_averages=optimizers.averages if optimizers and averaged else None,
        stop=stop,
    )


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What trainer, evaluator and checkpoints are made of."""

    config: config_pb2.ExperimentOptions
    folder: str
    run_folder: str
    strategy: tf.distribute.Strategy
    model: tf.keras.Model
    global_step: tf.Variable
    bad_records: Mapping[str, BadRecords]
    stop: StopSignals


def describe(strategy: tf.distribute.Strategy) -> str:
    """The hardware a strategy computes on, in words."""
    devices = sorted({device.split("/")[-1].replace("device:", "") for device in strategy.extended.worker_devices})
    return f"{strategy.num_replicas_in_sync} replica(s) on {', '.join(devices)}"


def _distributed(parts: _Parts, options: dataset_pb2.DatasetOptions, is_training: bool):
    bad_records = parts.bad_records["train" if is_training else "eval"]
    first_step = step_of(last_whole_checkpoint(parts.folder)) if is_training else 0

    def make(input_context=None):
        batches = build_dataset(options, is_training, input_context, first_step=first_step, bad_records=bad_records)
        # TPUs take no strings.
        return batches.map(without_record_names) if is_training and _on_tpu(parts.strategy) else batches

    return orbit.utils.make_distributed_dataset(parts.strategy, make)


def _on_tpu(strategy: tf.distribute.Strategy) -> bool:
    return isinstance(strategy, tf.distribute.TPUStrategy)


def _build_optimizers(parts: _Parts) -> Optimizers:
    options, batch_size = parts.config.trainer_options.solver_options, parts.config.train_dataset_options.batch_size
    if (factor := learning_rate_factor(options, batch_size)) != 1:
        reference = options.learning_rate_reference_batch_size
        say(f"learning rates are {factor:.4g} times the config's: batch size {batch_size} for {reference}")
    settings = solver_settings(options, batch_size)
    model = parts.model
    averages = build_weight_averages(model, settings.average_decay)
    return build_optimizers(settings, model.trainable_variables, model.backbone_variables, averages)


def _training_summaries(parts: _Parts, clock: StepClock) -> TrainingSummaries:
    options = parts.config.trainer_options
    pictures = None
    if options.num_summary_images > 0:
        pictures = TrainingPictures(
            load_dataset(parts.config.train_dataset_options.dataset),
            count=options.num_summary_images,
            interval=options.save_summaries_steps,
            fetch=clock.fetch,
        )
    return TrainingSummaries(os.path.join(parts.folder, "train"), parts.global_step, clock, pictures)


def _build_trainer(
    parts: _Parts, optimizers: Optimizers, loss_scale: LossScale | None, progress: Progress, fetch: Callable
) -> Trainer:
    options = parts.config.trainer_options
    loss = build_loss(parts.config, "xla" if options.xla else "auto")
    step = TrainStep(
        model=parts.model,
        loss=loss,
        loss_names=loss.names,
        optimizers=optimizers,
        draws=functools.partial(Seeding.from_options(options).draws, parts.global_step),
        compiled=options.xla,
        micro_batches=options.gradient_accumulation_steps,
        loss_scale=loss_scale,
    )

    check_together = CommonStop(parts.stop)

    def on_traced(seconds, without_gradient):
        progress.on_traced(seconds, without_gradient)
        parts.stop.on_traced()

    def on_step():
        progress.on_step()
        check_together()

    return Trainer(
        step=step,
        dataset=_distributed(parts, parts.config.train_dataset_options, is_training=True),
        global_step=parts.global_step,
        in_graph=_on_tpu(parts.strategy),
        policy=NonFinitePolicy.from_options(options),
        on_failure=DebugBundles(parts.run_folder, parts.config, parts.model).save,
        fetch=fetch,
        on_traced=on_traced,
        on_step=on_step,
    )


def _shared_evenly(options: dataset_pb2.DatasetOptions, replicas: int) -> dataset_pb2.DatasetOptions:
    """Options with the next larger batch that all replicas share evenly; evaluation gives the same figures with it."""
    shared = dataset_pb2.DatasetOptions()
    shared.CopyFrom(options)
    shared.batch_size = -(-options.batch_size // replicas) * replicas
    return shared


def _build_evaluator(parts: _Parts) -> Evaluator:
    options = _shared_evenly(parts.config.eval_dataset_options, parts.strategy.num_replicas_in_sync)
    descriptor = load_dataset(options.dataset)
    wishes = parts.config.evaluator_options
    pictures = SummaryPictures(descriptor, wishes.num_summary_images, parts.global_step)
    loss = build_loss(parts.config)
    return Evaluator(
        model=parts.model,
        loss=loss,
        loss_names=loss.names_for(0),
        postprocess=build_postprocessor(parts.config),
        descriptor=descriptor,
        dataset=_distributed(parts, options, is_training=False),
        global_step=parts.global_step,
        output_folder=os.path.join(parts.folder, "eval"),
        files=prediction_files(wishes, descriptor, parts.run_folder, chief=is_chief(parts.strategy)),
        pictures=pictures if wishes.num_summary_images > 0 else None,
        per_class=wishes.per_class_summaries,
        has_labels=options.decode_groundtruth_label,
        use_tf_function=wishes.use_tf_function,
        say=say,
    )


def _build_controller(
    parts: _Parts,
    trainer: Trainer | None,
    evaluator: Evaluator | None,
    checkpoints: RunCheckpoints | None,
    progress: Progress | None,
    summaries: TrainingSummaries | None,
) -> orbit.Controller:
    """orbit's outer loop; restores the checkpoints' latest, and prints through `progress`."""
    return orbit.Controller(
        trainer=trainer,
        evaluator=evaluator,
        checkpoint_manager=checkpoints,
        # The second is for devices that run a whole loop by themselves.
        train_actions=[progress, lambda logs: parts.stop.check()] if progress else (),
        steps_per_loop=parts.config.trainer_options.steps_per_loop,
        eval_summary_dir=os.path.join(parts.folder, "eval"),
        summary_manager=summaries,
        global_step=parts.global_step,
        strategy=parts.strategy,
    )


def _build_checkpoints(parts: _Parts, optimizers: Optimizers | None, loss_scale: LossScale | None) -> RunCheckpoints:
    trainer_options = parts.config.trainer_options
    return RunCheckpoints(
        parts.model,
        parts.global_step,
        parts.folder,
        keep=trainer_options.num_checkpoints_to_keep,
        interval=trainer_options.save_checkpoints_steps,
        initialize=functools.partial(_start_training if optimizers else _start_evaluation, parts),
        optimizers=optimizers.checkpoint_items if optimizers else None,
        averages=optimizers.averages if optimizers else None,
        loss_scale=loss_scale,
        restore_averages=not optimizers and parts.config.evaluator_options.use_averaged_weights,
        stop=parts.stop,
    )


def _start_training(parts: _Parts) -> str:
    options = parts.config.model_options
    epsilon = parts.config.trainer_options.solver_options.batchnorm_epsilon
    load_encoder = None
    if pretrained := pretrained_encoder(parts.folder, options):
        load_encoder = functools.partial(
            load_pretrained_weights, parts.model, pretrained, options.backbone.name, epsilon
        )
    return initial_weights(parts.model, InitialCheckpoint.from_options(options), parts.folder, load_encoder)


def _start_evaluation(parts: _Parts) -> str:
    averaged = parts.config.evaluator_options.use_averaged_weights
    report = load_checkpoint(parts.model, parts.config.model_options.initial_checkpoint, averaged=averaged)
    return f"no checkpoint in the model folder; evaluating initial_checkpoint {report.path}"
