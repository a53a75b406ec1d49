"""A run: one experiment in one mode, with all that it needs."""

from __future__ import annotations

import functools
import os
import time

import orbit
import tensorflow as tf

from deeplab2_kmax.checkpoints import load_checkpoint
from deeplab2_kmax.checkpoints.integrity import last_whole_checkpoint
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.evaluation.evaluator import Evaluator
from deeplab2_kmax.evaluation.prediction_files import prediction_files
from deeplab2_kmax.evaluation.summary_pictures import SummaryPictures
from deeplab2_kmax.input_pipeline import BadRecords, build_dataset
from deeplab2_kmax.losses import build_loss
from deeplab2_kmax.model import build_model
from deeplab2_kmax.postprocessing import build_postprocessor
from deeplab2_kmax.pretrained_weights import load_pretrained_weights
from deeplab2_kmax.protos import config_pb2, dataset_pb2
from deeplab2_kmax.terminal import say
from deeplab2_kmax.training.checkpoints.checkpointing import RunCheckpoints, pretrained_encoder, step_of
from deeplab2_kmax.training.checkpoints.initial_weights import InitialCheckpoint, initial_weights
from deeplab2_kmax.training.distribution.multi_worker import CommonStop, require_same_step
from deeplab2_kmax.training.distribution.strategy import is_chief
from deeplab2_kmax.training.mode import Mode
from deeplab2_kmax.training.optimizers import (
    Optimizers,
    WeightAverages,
    build_optimizers,
    build_weight_averages,
    learning_rate_factor,
    solver_settings,
)
from deeplab2_kmax.training.reporting.pictures import TrainingPictures
from deeplab2_kmax.training.reporting.progress import Progress, duration
from deeplab2_kmax.training.reporting.step_clock import StepClock
from deeplab2_kmax.training.reporting.summaries import TrainingSummaries
from deeplab2_kmax.training.run.stop_signals import StopSignals
from deeplab2_kmax.training.step.debug_bundle import DebugBundles
from deeplab2_kmax.training.step.loop import Trainer
from deeplab2_kmax.training.step.loss_scale import LossScale, build_loss_scale
from deeplab2_kmax.training.step.non_finite import NonFinitePolicy, without_record_names
from deeplab2_kmax.training.step.seeding import Seeding
from deeplab2_kmax.training.step.step import TrainStep


class Run:
    """One experiment in one mode, built in the scope of its strategy and ready to be trained or evaluated.

    Training restores the latest checkpoint, or the weights to start from, as part of being built. Evaluation restores
    later, since it may wait for a checkpoint or start from another folder's.

    Attributes:
        config: the experiment.
        mode: what the run is for.
        folder: where this process reads checkpoints and writes.
        shared_folder: the folder of the run; another than `folder` in all but one of several processes.
        strategy: where it computes.
        stop: SIGTERM and Ctrl-C.
        global_step: int64 scalar variable, the number of steps taken.
        model: the network.
        bad_records: what has been left out of the data, under "train" and "eval".
        optimizers: None where nothing is trained; likewise `loss_scale`, `progress` and `summaries`.
        checkpoints: where the weights come from, and what the run leaves behind.
        controller: orbit's outer loop, around the trainer and the evaluator that the mode needs.
    """

    def __init__(
        self,
        config: config_pb2.ExperimentOptions,
        mode: Mode,
        folder: str,
        strategy: tf.distribute.Strategy,
        stop: StopSignals | None = None,
        shared_folder: str | None = None,
    ):
        """Builds all parts; has to be called in the scope of `strategy`."""
        self.config, self.mode, self.folder, self.strategy = config, mode, folder, strategy
        self.shared_folder = shared_folder or folder
        self.stop = stop or StopSignals()
        say(f"experiment {config.experiment_name!r} in {os.path.abspath(folder)}; {describe(strategy)}")
        if mode.trains:
            # Before the model is built: its first weights are drawn from this seed.
            Seeding.from_options(config.trainer_options).begin()
        self.model = self._build_model()
        self.global_step = orbit.utils.create_global_step()
        self.bad_records = {
            "train": BadRecords(config.train_dataset_options.max_bad_records),
            "eval": BadRecords(config.eval_dataset_options.max_bad_records),
        }
        self.optimizers: Optimizers | None = None
        self.loss_scale: LossScale | None = None
        self.progress: Progress | None = None
        self.summaries: TrainingSummaries | None = None
        if mode.trains:
            self.optimizers = self._build_optimizers()
            self.loss_scale = build_loss_scale(config.model_options.precision)
            clock = StepClock(config.train_dataset_options.batch_size)
            self.progress = Progress(self.global_step, self.total_steps, clock)
            self.summaries = self._build_summaries(clock)
        self.checkpoints = self._build_checkpoints()
        self.controller = self._build_controller()
        require_same_step(self.global_step)

    @property
    def total_steps(self) -> int:
        """The step at which training ends."""
        return self.config.trainer_options.solver_options.training_number_of_steps

    @property
    def evaluated_averages(self) -> WeightAverages | None:
        """Averages of the weights that a training run evaluates in place of the weights; None: the weights are."""
        wanted = self.config.evaluator_options.use_averaged_weights
        return self.optimizers.averages if self.optimizers and wanted else None

    def _build_model(self) -> tf.keras.Model:
        start = time.monotonic()
        model = build_model(self.config)
        seconds = duration(time.monotonic() - start)
        say(f"model {self.config.model_options.backbone.name} built in {seconds}: {model.count_params():,} weights")
        return model

    def _build_optimizers(self) -> Optimizers:
        options = self.config.trainer_options.solver_options
        batch_size = self.config.train_dataset_options.batch_size
        if (factor := learning_rate_factor(options, batch_size)) != 1:
            reference = options.learning_rate_reference_batch_size
            say(f"learning rates are {factor:.4g} times the config's: batch size {batch_size} for {reference}")
        settings = solver_settings(options, batch_size)
        averages = build_weight_averages(self.model, settings.average_decay)
        return build_optimizers(settings, self.model.trainable_variables, self.model.backbone_variables, averages)

    def _build_summaries(self, clock: StepClock) -> TrainingSummaries:
        options = self.config.trainer_options
        pictures = None
        if options.num_summary_images > 0:
            pictures = TrainingPictures(
                load_dataset(self.config.train_dataset_options.dataset),
                count=options.num_summary_images,
                interval=options.save_summaries_steps,
                fetch=clock.fetch,
            )
        return TrainingSummaries(os.path.join(self.folder, "train"), self.global_step, clock, pictures)

    def _build_checkpoints(self) -> RunCheckpoints:
        options, optimizers = self.config.trainer_options, self.optimizers
        return RunCheckpoints(
            self.model,
            self.global_step,
            self.folder,
            keep=options.num_checkpoints_to_keep,
            interval=options.save_checkpoints_steps,
            initialize=self._start_training if optimizers else self._start_evaluation,
            optimizers=optimizers.checkpoint_items if optimizers else None,
            averages=optimizers.averages if optimizers else None,
            loss_scale=self.loss_scale,
            restore_averages=not optimizers and self.config.evaluator_options.use_averaged_weights,
            stop=self.stop,
        )

    def _start_training(self) -> str:
        """Loads what a new run starts from; returns a line that says what that was."""
        options = self.config.model_options
        epsilon = self.config.trainer_options.solver_options.batchnorm_epsilon
        load_encoder = None
        if pretrained := pretrained_encoder(self.folder, options):
            load_encoder = functools.partial(
                load_pretrained_weights, self.model, pretrained, options.backbone.name, epsilon
            )
        return initial_weights(self.model, InitialCheckpoint.from_options(options), self.folder, load_encoder)

    def _start_evaluation(self) -> str:
        """Loads what is evaluated where the folder holds no checkpoint; returns a line that says what that was."""
        averaged = self.config.evaluator_options.use_averaged_weights
        report = load_checkpoint(self.model, self.config.model_options.initial_checkpoint, averaged=averaged)
        return f"no checkpoint in the model folder; evaluating initial_checkpoint {report.path}"

    def _build_controller(self) -> orbit.Controller:
        return orbit.Controller(
            trainer=self._build_trainer() if self.mode.trains else None,
            evaluator=self._build_evaluator() if self.mode.evaluates else None,
            # With it the controller restores at once, which evaluation must not; see the class.
            checkpoint_manager=self.checkpoints if self.mode.trains else None,
            # The second is for devices that run a whole loop by themselves.
            train_actions=[self.progress, lambda logs: self.stop.check()] if self.progress else (),
            steps_per_loop=self.config.trainer_options.steps_per_loop,
            eval_summary_dir=os.path.join(self.folder, "eval"),
            summary_manager=self.summaries,
            global_step=self.global_step,
            strategy=self.strategy,
        )

    def _build_trainer(self) -> Trainer:
        options, progress = self.config.trainer_options, self.progress
        loss = build_loss(self.config, "xla" if options.xla else "auto")
        step = TrainStep(
            model=self.model,
            loss=loss,
            loss_names=loss.names,
            optimizers=self.optimizers,
            draws=functools.partial(Seeding.from_options(options).draws, self.global_step),
            compiled=options.xla,
            micro_batches=options.gradient_accumulation_steps,
            loss_scale=self.loss_scale,
        )
        check_together = CommonStop(self.stop)

        def on_traced(seconds, without_gradient):
            progress.on_traced(seconds, without_gradient)
            self.stop.on_traced()

        def on_step():
            progress.on_step()
            check_together()

        return Trainer(
            step=step,
            dataset=self._distributed(self.config.train_dataset_options, is_training=True),
            global_step=self.global_step,
            in_graph=self._on_tpu,
            policy=NonFinitePolicy.from_options(options),
            on_failure=DebugBundles(self.shared_folder, self.config, self.model).save,
            fetch=self.summaries.fetch,
            on_traced=on_traced,
            on_step=on_step,
        )

    def _build_evaluator(self) -> Evaluator:
        options = _shared_evenly(self.config.eval_dataset_options, self.strategy.num_replicas_in_sync)
        descriptor = load_dataset(options.dataset)
        wishes = self.config.evaluator_options
        pictures = SummaryPictures(descriptor, wishes.num_summary_images, self.global_step)
        loss = build_loss(self.config)
        return Evaluator(
            model=self.model,
            loss=loss,
            loss_names=loss.names_for(0),
            postprocess=build_postprocessor(self.config),
            descriptor=descriptor,
            dataset=self._distributed(options, is_training=False),
            global_step=self.global_step,
            output_folder=os.path.join(self.folder, "eval"),
            files=prediction_files(wishes, descriptor, self.shared_folder, chief=is_chief(self.strategy)),
            pictures=pictures if wishes.num_summary_images > 0 else None,
            per_class=wishes.per_class_summaries,
            has_labels=options.decode_groundtruth_label,
            use_tf_function=wishes.use_tf_function,
            say=say,
        )

    def _distributed(self, options: dataset_pb2.DatasetOptions, is_training: bool):
        """The batches of a data set, spread over the replicas of the strategy."""
        bad_records = self.bad_records["train" if is_training else "eval"]
        first_step = step_of(last_whole_checkpoint(self.folder)) if is_training else 0

        def make(input_context=None):
            batches = build_dataset(options, is_training, input_context, first_step=first_step, bad_records=bad_records)
            # TPUs take no strings.
            return batches.map(without_record_names) if is_training and self._on_tpu else batches

        return orbit.utils.make_distributed_dataset(self.strategy, make)

    @property
    def _on_tpu(self) -> bool:
        return isinstance(self.strategy, tf.distribute.TPUStrategy)


def describe(strategy: tf.distribute.Strategy) -> str:
    """The hardware a strategy computes on, in words."""
    devices = sorted({device.split("/")[-1].replace("device:", "") for device in strategy.extended.worker_devices})
    return f"{strategy.num_replicas_in_sync} replica(s) on {', '.join(devices)}"


def _shared_evenly(options: dataset_pb2.DatasetOptions, replicas: int) -> dataset_pb2.DatasetOptions:
    """Options with the next larger batch that all replicas share evenly; evaluation gives the same figures with it."""
    shared = dataset_pb2.DatasetOptions()
    shared.CopyFrom(options)
    shared.batch_size = -(-options.batch_size // replicas) * replicas
    return shared
