"""The inner training loop: orbit's trainer, which repeats steps and sums up what they report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orbit
import tensorflow as tf

from deeplab2_kmax.errors import TrainingError
from deeplab2_kmax.training.step.non_finite import STOP, NonFinite, NonFinitePolicy, without_record_names
from deeplab2_kmax.training.step.step import Batch, PendingUpdate, StepReport, TrainStep
from deeplab2_kmax.training.step.tracing import no_garbage_collection, training_graph_passes


class Trainer(orbit.StandardTrainer):
    """Trains a model with orbit's loop.

    A step whose loss or gradient is not finite changes nothing. It ends training or is skipped, as `policy` says. A
    skipped step counts in `global_step`, which counts batches, but not in the optimizers' own count of updates. A
    gradient that overflowed only because of the loss scale is no fault: that step is skipped whatever the policy.

    Args:
        step: the step to repeat.
        dataset: distributed data set of batches: dicts with `image` and what the loss reads.
        global_step: int64 scalar variable; each step adds one.
        in_graph: whether to repeat steps inside the graph, which only TPUs gain from. On other devices this takes
            longer to trace and to optimize, and keeps the process from reacting to Ctrl-C.
        policy: after how many steps in a row that are not finite training stops.
        on_failure: called before training stops for that reason; returns a sentence for the user.
        on_traced: called once, before the first step, with the seconds it took to trace the training graph and the
            names of trainable variables the loss does not depend on; these keep their values.
        fetch: takes a batch from the iterator over `dataset`; not called where steps are repeated in the graph.
        on_step: called after each step; not called where steps are repeated in the graph. An exception it raises ends
            training between two steps.
    """

    def __init__(
        self,
        *,
        step: TrainStep,
        dataset: tf.data.Dataset | tf.distribute.DistributedDataset,
        global_step: tf.Variable,
        in_graph: bool = False,
        policy: NonFinitePolicy = STOP,
        on_failure: Callable[[NonFinite], str] | None = None,
        on_traced: Callable[[float, Sequence[str]], None] | None = None,
        fetch: Callable[[Iterator[Batch]], Batch] = next,
        on_step: Callable[[], None] | None = None,
    ):
        super().__init__(dataset)
        self._strategy = tf.distribute.get_strategy()
        self._step = step
        self._global_step = global_step
        self._in_graph = in_graph
        self._policy = policy
        self._on_failure = on_failure
        self._on_traced = on_traced
        self._fetch = fetch
        self._on_step = on_step
        # Sums since the loop began: all loss terms, the gradient norm, the steps these are from, the steps skipped. One
        # variable, because a Keras metric for each would add hundreds of operations to every step.
        self._sums = tf.Variable(tf.zeros([len(step.loss_names) + 3]), trainable=False)
        self._not_finite_in_a_row = tf.Variable(0, trainable=False, dtype=tf.int64)

    def train(self, num_steps: tf.Tensor) -> dict[str, Any]:
        """Makes `num_steps` steps; returns the scalars of `train_loop_end`.

        Raises:
            TrainingError: too many losses or gradients in a row were not finite.
        """
        with training_graph_passes():
            if self._train_loop_fn is None:
                # orbit would trace within the first step; here it is timed and reported on its own.
                with no_garbage_collection():
                    self._trace()
            logs: dict[str, Any] = super().train(num_steps)
            return logs

    def _trace(self) -> None:
        start = time.monotonic()
        self._train_iter = iter(self.train_dataset)
        self._train_loop_fn = self.create_train_loop_fn()
        if self._on_traced is not None:
            self._on_traced(time.monotonic() - start, self._step.without_gradient)

    def create_train_loop_fn(self) -> Callable[[Iterator[Batch], tf.Tensor], None]:
        """The function `(iterator, num_steps)` that orbit calls for each loop; its graphs are traced already."""
        if not self._in_graph:
            return self._host_loop()
        repeat = tf.function(self._repeat_in_graph, autograph=False)
        repeat.get_concrete_function(self._train_iter, tf.constant(1))

        def run(iterator: Iterator[Batch], num_steps: tf.Tensor) -> None:
            batch, report, stop = repeat(iterator, num_steps)
            if stop:
                self._fail(batch, report)

        return run

    def train_step(self, iterator: Iterator[Batch]) -> tuple[StepReport, tf.Tensor]:
        """One step, as orbit wants it. Both loops here take the batch themselves, to have it if the step fails."""
        return self._counted_step(next(iterator))

    def _host_loop(self) -> Callable[[Iterator[Batch], tf.Tensor], None]:
        """Repeats steps from Python, which reads after the backward pass which second half the step gets."""
        forward_backward = tf.function(
            self._forward_backward, autograph=False, input_signature=[self._train_iter.element_spec]
        )
        apply_gradients = tf.function(self._apply_gradients, autograph=False)
        restore_statistics = tf.function(self._restore_statistics, autograph=False)
        # `restore_statistics` is traced only if a step needs it; most runs never do.
        apply_gradients.get_concrete_function(*forward_backward.get_concrete_function().structured_outputs)

        def run(iterator: Iterator[Batch], num_steps: tf.Tensor) -> None:
            for _ in range(int(num_steps)):
                batch = self._fetch(iterator)
                report, pending = forward_backward(batch)
                stop = (apply_gradients if report.finite else restore_statistics)(report, pending)
                # Else these gradients would still take up memory while the next ones are computed.
                del pending
                if stop:
                    self._fail(batch, report)
                if self._on_step is not None:
                    self._on_step()

        return run

    def _repeat_in_graph(self, iterator: Iterator[Batch], num_steps: tf.Tensor) -> tuple[Batch, StepReport, tf.Tensor]:
        """Repeats steps up to one that fails; returns the last batch, its report and whether to stop."""

        def body(
            done: tf.Tensor, stop: tf.Tensor, batch: Batch, report: StepReport
        ) -> tuple[tf.Tensor, tf.Tensor, Batch, StepReport]:
            del stop, report
            report, stop = self._counted_step(batch)
            done += 1
            go_on = ~stop & (done < num_steps)
            # The batch is a loop variable, so that one that failed can be returned. The next one is taken only if it
            # will be used: what is taken after the last step would be missing from training.
            batch = tf.cond(go_on, lambda: next(iterator), lambda: batch)
            return done, stop, batch, report

        model = self._step.model
        figures = (len(self._step.loss_names), len(model.trainable_variables), len(model.non_trainable_variables))
        terms, squares, statistics = (tf.zeros([number]) for number in figures)
        none = StepReport(terms, tf.zeros([]), squares, statistics, tf.constant(True), tf.constant(False))
        start = (tf.zeros([], num_steps.dtype), tf.constant(False), next(iterator), none)
        _, stop, batch, report = tf.while_loop(
            lambda done, stop, *_: ~stop & (done < num_steps), body, start, parallel_iterations=1
        )
        return batch, report, stop

    def _forward_backward(self, batch: Batch) -> tuple[StepReport, PendingUpdate]:
        return self._step.forward_backward(without_record_names(batch))

    def _apply_gradients(self, report: StepReport, pending: PendingUpdate) -> tf.Tensor:
        self._step.apply_gradients(pending)
        return self._counted(report)

    def _restore_statistics(self, report: StepReport, pending: PendingUpdate) -> tf.Tensor:
        self._step.restore_statistics(pending)
        return self._counted(report)

    def _counted_step(self, batch: Batch) -> tuple[StepReport, tf.Tensor]:
        report = self._step(without_record_names(batch))
        return report, self._counted(report)

    def _counted(self, report: StepReport) -> tf.Tensor:
        """Adds a step to the sums and counts; returns whether training has to stop.

        The step that stops training does not count in `global_step`: a run that goes on repeats it.
        """
        no_fault = report.finite | report.overflowed
        in_a_row = tf.where(no_fault, tf.zeros([], tf.int64), self._not_finite_in_a_row + 1)
        self._not_finite_in_a_row.assign(in_a_row)
        stop = in_a_row >= self._policy.in_a_row
        self._global_step.assign_add(tf.cast(~stop, self._global_step.dtype))
        made = tf.concat([report.terms, [report.norm, 1.0, 0.0]], 0)
        # Chosen rather than multiplied by 0, which would leave NaN in the sums.
        skipped = tf.constant([0.0] * (made.shape[0] - 1) + [1.0])
        self._sums.assign_add(tf.where(report.finite, made, skipped))
        return stop

    def _fail(self, batch: Batch, report: StepReport) -> None:
        local = self._strategy.experimental_local_results
        arrays = {name: np.concatenate([part.numpy() for part in local(values)]) for name, values in batch.items()}
        found = NonFinite.from_report(int(self._global_step.numpy()) + 1, self._step, report, arrays)
        kept = f". {self._on_failure(found)}" if self._on_failure else ""
        raise TrainingError(found.message(self._policy) + kept)

    def train_loop_begin(self) -> None:
        """Starts the sums of a loop anew."""
        self._sums.assign(tf.zeros_like(self._sums))

    def train_loop_end(self) -> dict[str, Any]:
        """What the loop found, by TensorBoard's names.

        Returns:
            Scalars: `losses/train_<term>` and `gradient_norm`, means over the loop's steps (those skipped left out);
            the optimizers' current rates; `skipped_steps`, how many the loop skipped, where steps may be skipped;
            `loss_scale` where there is one.
        """
        *sums, count, skipped = self._sums.numpy()
        *losses, norm = (value / count if count else math.nan for value in sums)
        logs: dict[str, Any] = {f"losses/train_{name}": value for name, value in zip(self._step.loss_names, losses)}
        logs["gradient_norm"] = norm
        scale = self._step.loss_scale
        if self._policy.skips or scale is not None:
            logs["skipped_steps"] = skipped
        if scale is not None:
            logs["loss_scale"] = scale.value
        return {**logs, **self._step.optimizers.learning_rates(self._global_step)}
