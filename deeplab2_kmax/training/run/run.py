"""A run: one experiment in one mode, with all that it needs."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import orbit
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints import load_checkpoint
from deeplab2_kmax.checkpoints.integrity import last_whole_checkpoint
from deeplab2_kmax.config import config_to_text
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.evaluation.evaluator import Evaluator
from deeplab2_kmax.evaluation.metric_set import MetricSettings
from deeplab2_kmax.evaluation.prediction_files import build_prediction_files
from deeplab2_kmax.evaluation.summary_pictures import SummaryPictures
from deeplab2_kmax.input_pipeline import BadRecords, build_dataset
from deeplab2_kmax.losses import build_loss
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.averaged_passes import in_passes
from deeplab2_kmax.model.frozen import FrozenNetwork
from deeplab2_kmax.postprocessing import build_postprocessor
from deeplab2_kmax.pretrained_weights import load_pretrained_weights
from deeplab2_kmax.protos import config_pb2, dataset_pb2
from deeplab2_kmax.stop_signals import StopSignals
from deeplab2_kmax.terminal import say, say_note
from deeplab2_kmax.training.checkpoints.checkpointing import RunCheckpoints, step_of
from deeplab2_kmax.training.checkpoints.initial_weights import InitialCheckpoint, initial_weights, pretrained_encoder
from deeplab2_kmax.training.distribution.cluster import cluster_of_environment
from deeplab2_kmax.training.distribution.multi_worker import CommonStop, require_same_step
from deeplab2_kmax.training.distribution.strategy import describe, is_chief
from deeplab2_kmax.training.evaluating.evaluation_results import settings_fingerprint
from deeplab2_kmax.training.mode import Mode
from deeplab2_kmax.training.optimizers import (
    Optimizers,
    SolverSettings,
    WeightAverages,
    build_optimizers,
    build_weight_averages,
    learning_rate_factor,
)
from deeplab2_kmax.training.reporting.loggers.background import Loggers
from deeplab2_kmax.training.reporting.loggers.factory import build_loggers
from deeplab2_kmax.training.reporting.loggers.run_logger import RunFacts
from deeplab2_kmax.training.reporting.progress import Progress, duration
from deeplab2_kmax.training.reporting.step_clock import StepClock
from deeplab2_kmax.training.reporting.summaries import TrainingPictures, TrainingSummaries
from deeplab2_kmax.training.step.debug_bundle import DebugBundles
from deeplab2_kmax.training.step.loop import Trainer
from deeplab2_kmax.training.step.loss_scale import LossScale, build_loss_scale
from deeplab2_kmax.training.step.non_finite import NonFinitePolicy, without_record_names
from deeplab2_kmax.training.step.seeding import Seeding
from deeplab2_kmax.training.step.step import TrainStep
from deeplab2_kmax.wording import counted


@dataclasses.dataclass(frozen=True)
class TrainingParts:
    """What only a run that trains has, beside its trainer.

    Attributes:
        optimizers: update the weights.
        loss_scale: of a model that computes in float16; else None.
        progress: prints the lines of training.
        summaries: writes for TensorBoard.
    """

    optimizers: Optimizers
    loss_scale: LossScale | None
    progress: Progress
    summaries: TrainingSummaries


class Run:
    """One experiment in one mode, built in the scope of its strategy and ready to be trained or evaluated.

    A run that trains restores the latest checkpoint, or the weights to start from, while it is built. One that only
    evaluates restores later, since it may wait for a checkpoint.

    Attributes:
        config: the experiment.
        mode: what the run is for.
        folder: where this process reads checkpoints and writes.
        shared_folder: the folder of the run. Of several processes that train together all but the chief have another
            `folder`.
        strategy: the devices it computes on.
        stop: SIGTERM and Ctrl-C.
        model: the network.
        global_step: int64 scalar variable, the number of steps taken.
        bad_records: what has been left out of the data, by "train" and "eval".
        loggers: take figures beside TensorBoard.
        training: what only a run that trains has; else None.
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
        """Builds all parts; has to be called in the scope of `strategy`.

        Args:
            config: the experiment.
            mode: what the run is for.
            folder: where this process reads checkpoints and writes.
            strategy: the devices to compute on.
            stop: signals to be told of; None: of none.
            shared_folder: the folder of the run; None: `folder`.
        """
        self.config, self.mode, self.folder, self.strategy = config, mode, folder, strategy
        self.shared_folder = shared_folder or folder
        self.stop = stop or StopSignals()
        say(f"experiment {config.experiment_name!r}: {describe(strategy)}\nfolder: {files.absolute(folder)}")
        if mode.trains:
            # Before the model is built: its first weights are drawn from this seed.
            Seeding.from_options(config.trainer_options).begin()
        self.loggers = self._build_loggers()
        self.model = self._build_model()
        self.global_step: tf.Variable = orbit.utils.create_global_step()
        self.bad_records = {
            "train": BadRecords(config.train_dataset_options.max_bad_records),
            "eval": BadRecords(config.eval_dataset_options.max_bad_records),
        }
        self.training = self._build_training_parts() if mode.trains else None
        self.checkpoints = self._build_checkpoints()
        self.controller = self._build_controller()
        # Only now, since a run that trains has restored its checkpoint while the controller was built.
        require_same_step(self.global_step)
        if mode.trains:
            self.checkpoints.warn_of_full_disk()

    @property
    def total_steps(self) -> int:
        """The step at which training ends."""
        return self.config.trainer_options.solver_options.training_number_of_steps

    @property
    def evaluated_averages(self) -> WeightAverages | None:
        """The averages that a run which trains evaluates in place of the weights; None: it evaluates the weights."""
        wanted = self.config.evaluator_options.use_averaged_weights
        return self.training.optimizers.averages if self.training and wanted else None

    def _build_loggers(self) -> Loggers:
        # Of several processes all have the same figures; one tells them.
        names = self.config.trainer_options.loggers if is_chief(self.strategy) else ()
        facts = RunFacts(self.config.experiment_name, self.shared_folder, config_to_text(self.config), self.mode.value)
        return build_loggers(names, facts)

    def _build_model(self) -> tf.keras.Model:
        start = time.monotonic()
        model = build_model(self.config)
        seconds = duration(time.monotonic() - start)
        weights = counted(model.count_params(), "weight")
        say(f"model {self.config.model_options.backbone.name} built in {seconds}: {weights}")
        return model

    def _build_training_parts(self) -> TrainingParts:
        clock = StepClock(self.config.train_dataset_options.batch_size)
        return TrainingParts(
            optimizers=self._build_optimizers(),
            loss_scale=build_loss_scale(self.config.model_options.precision),
            progress=Progress(self.global_step, self.total_steps, clock),
            summaries=self._build_summaries(clock),
        )

    def _build_optimizers(self) -> Optimizers:
        options = self.config.trainer_options.solver_options
        batch_size = self.config.train_dataset_options.batch_size
        if (factor := learning_rate_factor(options, batch_size)) != 1:
            reference = options.learning_rate_reference_batch_size
            say_note(f"learning rates are {factor:.4g} times the config's: batch size {batch_size} for {reference}")
        settings = SolverSettings.from_options(options, batch_size)
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
        return TrainingSummaries(files.join(self.folder, "train"), self.global_step, clock, pictures, self.loggers)

    def _build_checkpoints(self) -> RunCheckpoints:
        options, training = self.config.trainer_options, self.training
        return RunCheckpoints(
            self.model,
            self.global_step,
            self.folder,
            keep=options.num_checkpoints_to_keep,
            interval=options.save_checkpoints_steps,
            initialize=self._start_training if training else self._start_evaluation,
            optimizers=training.optimizers.checkpoint_items if training else None,
            averages=training.optimizers.averages if training else None,
            loss_scale=training.loss_scale if training else None,
            restore_averages=not training and self.config.evaluator_options.use_averaged_weights,
            stop=self.stop,
        )

    def _start_training(self) -> str:
        """Loads the weights that a new run starts from; returns a line that says which."""
        options = self.config.model_options
        epsilon = self.config.trainer_options.solver_options.batchnorm_epsilon
        load_encoder = None
        if pretrained := pretrained_encoder(self.folder, options):
            load_encoder = functools.partial(
                load_pretrained_weights, self.model, pretrained, options.backbone.name, epsilon
            )
        said = initial_weights(self.model, InitialCheckpoint.from_options(options), self.folder, load_encoder)
        assert self.training is not None
        self.training.optimizers.start()
        return said

    def _start_evaluation(self) -> str:
        """Loads the weights to evaluate if the folder holds no checkpoint; returns a line that says which."""
        averaged = self.config.evaluator_options.use_averaged_weights
        report = load_checkpoint(self.model, self.config.model_options.initial_checkpoint, averaged=averaged)
        return f"no checkpoint in the model folder; evaluating initial_checkpoint {report.path}"

    def _build_controller(self) -> orbit.Controller:
        training = self.training
        return orbit.Controller(
            trainer=self._build_trainer(training) if training else None,
            evaluator=self._build_evaluator() if self.mode.evaluates else None,
            # A controller with a checkpoint manager restores at once, which a run that only evaluates must not do.
            checkpoint_manager=self.checkpoints if training else None,
            # Signals are checked after each step; here as well for TPUs, which make all steps of a loop by themselves.
            train_actions=[training.progress, lambda logs: self.stop.check()] if training else (),
            steps_per_loop=self.config.trainer_options.steps_per_loop,
            eval_summary_dir=files.join(self.folder, "eval"),
            summary_manager=training.summaries if training else None,
            global_step=self.global_step,
            strategy=self.strategy,
        )

    def _build_trainer(self, training: TrainingParts) -> Trainer:
        options = self.config.trainer_options
        cluster = cluster_of_environment()
        # "auto" lets SciPy match masks on the host, which XLA cannot compile.
        loss = build_loss(self.config, "xla" if options.xla else "auto")
        step = TrainStep(
            model=self.model,
            loss=loss,
            loss_names=loss.names,
            optimizers=training.optimizers,
            draws=functools.partial(Seeding.from_options(options).draws, self.global_step),
            compiled=options.xla,
            micro_batches=options.gradient_accumulation_steps,
            loss_scale=training.loss_scale,
        )
        check_together = CommonStop(self.stop)

        def on_traced(seconds: float, without_gradient: Sequence[str]) -> None:
            training.progress.on_traced(seconds, without_gradient)
            self.stop.on_traced()

        def on_step() -> None:
            training.progress.on_step()
            check_together()

        return Trainer(
            step=step,
            dataset=self._distributed(self.config.train_dataset_options, is_training=True),
            global_step=self.global_step,
            in_graph=self._on_tpu,
            policy=NonFinitePolicy.from_options(options),
            on_failure=DebugBundles(
                self.shared_folder, self.config, self.model, cluster.number if cluster else None
            ).save,
            fetch=training.summaries.fetch,
            on_traced=on_traced,
            on_step=on_step,
        )

    def _build_evaluator(self) -> Evaluator:
        options = _shared_evenly(self.config.eval_dataset_options, self.strategy.num_replicas_in_sync)
        descriptor = load_dataset(options.dataset)
        evaluator_options = self.config.evaluator_options
        pictures = SummaryPictures(descriptor, evaluator_options.num_summary_images, self.global_step)
        # TPUs compile with XLA, which can neither match masks on the host nor post-process.
        loss = build_loss(self.config, "xla" if self._on_tpu else "auto")
        return Evaluator(
            model=self._evaluated_network(),
            loss=loss,
            loss_names=loss.names_for(0),  # Without those of earlier decoder layers.
            postprocess=build_postprocessor(self.config),
            descriptor=descriptor,
            dataset=self._distributed(options, is_training=False),
            global_step=self.global_step,
            output_folder=files.join(self.folder, "eval"),
            files=build_prediction_files(
                evaluator_options, descriptor, self.shared_folder, chief=is_chief(self.strategy)
            ),
            pictures=pictures if evaluator_options.num_summary_images > 0 else None,
            metrics=MetricSettings.from_options(evaluator_options),
            per_class=evaluator_options.per_class_summaries,
            has_labels=options.decode_groundtruth_label,
            use_tf_function=evaluator_options.use_tf_function,
            postprocess_on_host=self._on_tpu,
            settings=settings_fingerprint(self.config),
            say=say,
        )

    def _evaluated_network(self) -> Callable:
        """The network as evaluation runs it: in several passes if the config says so, and with constants if it can."""
        network = in_passes(self.model, self.config.evaluator_options)
        return FrozenNetwork(network) if self._evaluates_fixed_weights else network

    def _distributed(
        self, options: dataset_pb2.DatasetOptions, is_training: bool
    ) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        """The batches of a data set, distributed over the replicas of the strategy."""
        bad_records = self.bad_records["train" if is_training else "eval"]
        # A seeded order of records goes on where the checkpoint's step left it.
        first_step = step_of(last_whole_checkpoint(self.folder)) if is_training else 0

        def make(input_context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
            batches = build_dataset(options, is_training, input_context, first_step=first_step, bad_records=bad_records)
            # TPUs take no strings. Elsewhere the names stay in the batch, to be named if its loss is not finite.
            return batches.map(without_record_names) if is_training and self._on_tpu else batches

        return orbit.utils.make_distributed_dataset(self.strategy, make)

    @property
    def _evaluates_fixed_weights(self) -> bool:
        """Whether the weights can be constants: nothing changes them later, and one device has them."""
        once_in_a_graph = self.mode is Mode.EVAL and self.config.evaluator_options.use_tf_function
        return once_in_a_graph and self.strategy.num_replicas_in_sync == 1 and not self._on_tpu

    @property
    def _on_tpu(self) -> bool:
        return isinstance(self.strategy, tf.distribute.TPUStrategy)


def _shared_evenly(options: dataset_pb2.DatasetOptions, replicas: int) -> dataset_pb2.DatasetOptions:
    """Options with a batch size rounded up to a multiple of the replicas; figures do not depend on the batch size."""
    # A copy: the config is kept and fingerprinted as the user gave it.
    shared = dataset_pb2.DatasetOptions()
    shared.CopyFrom(options)
    shared.batch_size = -(-options.batch_size // replicas) * replicas
    return shared
