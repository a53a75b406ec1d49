"""The inner training loop: orbit's, with the sums and logs of its steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import orbit
import tensorflow as tf

from deeplab2_kmax.errors import TrainingError
from deeplab2_kmax.training.step.non_finite import STOP, NonFinite, NonFinitePolicy, without_record_names
from deeplab2_kmax.training.step.step import Batch, Pending, StepReport, TrainStep
from deeplab2_kmax.training.step.tracing import no_garbage_collection, training_graph_passes


class Trainer(orbit.StandardTrainer):
    """Trains a model with orbit's loop.

    A step whose loss or gradient is not finite changes nothing. It ends training, or it is skipped, as `policy` says;
    a skipped step counts in `global_step`, which counts batches, but not in the optimizers' own count of updates. A
    gradient that a smaller loss scale may mend is no fault: the step is skipped whatever the policy.

    Args:
        step: what is repeated.
        dataset: distributed data set of batches, dicts with `image` and what the loss reads.
        global_step: int64 scalar variable, one more after each step.
        in_graph: repeat the step inside the graph, which only TPUs gain from. Elsewhere it takes longer to trace and to
            optimize, and makes the process deaf to Ctrl-C.
        policy: how many steps in a row may not be finite.
        on_failure: called before training stops for that; returns a sentence for the user.
        on_traced: called once, before the first step, with the seconds it took to trace the training graph and the
            names of trainable variables the loss does not depend on; these are left as they are.
        fetch: takes a batch from the iterator of `dataset` (not where steps are repeated in the graph).
        on_step: called after each step (not where steps are repeated in the graph). What it raises ends training
            between two steps.
    """

    def __init__(
        self,
        *,
        step: TrainStep,
        dataset,
        global_step: tf.Variable,
        in_graph: bool = False,
        policy: NonFinitePolicy = STOP,
        on_failure: Callable[[NonFinite], str] | None = None,
        on_traced: Callable[[float, Sequence[str]], None] | None = None,
        fetch: Callable[[Iterator], Batch] = next,
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
        # Since the loop began: sums of all terms and of the gradient norm, the steps they are from, the steps skipped:
        # one variable, because a Keras metric for each would add hundreds of operations to every step.
        self._sums = tf.Variable(tf.zeros([len(step.loss_names) + 3]), trainable=False)
        self._not_finite_in_a_row = tf.Variable(0, trainable=False, dtype=tf.int64)

    def train(self, num_steps: tf.Tensor):
        """Runs `num_steps` steps; returns the scalars of `train_loop_end`.

        Raises:
            TrainingError: a loss or gradient was not finite.
        """
        with training_graph_passes():
            if self._train_loop_fn is None:
                with no_garbage_collection():
                    self._trace()
            return super().train(num_steps)

    def _trace(self) -> None:
        start = time.monotonic()
        self._train_iter = iter(self.train_dataset)
        self._train_loop_fn = self.create_train_loop_fn()
        if self._on_traced is not None:
            self._on_traced(time.monotonic() - start, self._step.without_gradient)

    def create_train_loop_fn(self):
        if not self._in_graph:
            return self._host_loop()
        repeat = tf.function(self._repeat_in_graph, autograph=False)
        repeat.get_concrete_function(self._train_iter, tf.constant(1))

        def run(iterator, num_steps):
            batch, report, stop = repeat(iterator, num_steps)
            if stop:
                self._fail(batch, report)

        return run

    def train_step(self, iterator):
        """orbit's name for one step; both loops take the batch by themselves, to have it where a step fails."""
        return self._counted_step(next(iterator))

    def _host_loop(self) -> Callable:
        """Repeats steps from Python, which reads after the first half of a step whether to make the second."""
        look = tf.function(self._look, autograph=False, input_signature=[self._train_iter.element_spec])
        apply, put_back = (tf.function(half, autograph=False) for half in (self._apply, self._put_back))
        apply.get_concrete_function(*look.get_concrete_function().structured_outputs)

        def run(iterator, num_steps):
            for _ in range(int(num_steps)):
                batch = self._fetch(iterator)
                report, pending = look(batch)
                stop = (apply if report.finite else put_back)(report, pending)
                del pending  # Gradients need not be there while the next ones are made.
                if stop:
                    self._fail(batch, report)
                if self._on_step is not None:
                    self._on_step()

        return run

    def _repeat_in_graph(self, iterator, num_steps: tf.Tensor):
        """Stops at a step that fails; returns the last batch, its report and whether to stop."""

        def body(done, stop, batch, report):
            del stop, report
            report, stop = self._counted_step(batch)
            done += 1
            go_on = ~stop & (done < num_steps)
            batch = tf.cond(go_on, lambda: next(iterator), lambda: batch)
            return done, stop, batch, report

        weights = len(self._step.model.trainable_variables)
        yes, no = tf.constant(True), tf.constant(False)
        none = StepReport(tf.zeros([len(self._step.loss_names)]), tf.zeros([]), tf.zeros([weights]), yes, no)
        start = (tf.zeros([], num_steps.dtype), tf.constant(False), next(iterator), none)
        _, stop, batch, report = tf.while_loop(
            lambda done, stop, *_: ~stop & (done < num_steps), body, start, parallel_iterations=1
        )
        return batch, report, stop

    def _look(self, batch: Batch) -> tuple[StepReport, Pending]:
        return self._step.look(without_record_names(batch))

    def _apply(self, report: StepReport, pending: Pending) -> tf.Tensor:
        self._step.apply(pending)
        return self._counted(report)

    def _put_back(self, report: StepReport, pending: Pending) -> tf.Tensor:
        self._step.put_back(pending)
        return self._counted(report)

    def _counted_step(self, batch: Batch) -> tuple[StepReport, tf.Tensor]:
        report = self._step(without_record_names(batch))
        return report, self._counted(report)

    def _counted(self, report: StepReport) -> tf.Tensor:
        """Gives a step its place in sums and counts; whether training has to stop, in which case it does not count."""
        no_fault = report.finite | report.overflowed
        in_a_row = tf.where(no_fault, tf.zeros([], tf.int64), self._not_finite_in_a_row + 1)
        self._not_finite_in_a_row.assign(in_a_row)
        stop = in_a_row >= self._policy.in_a_row
        self._global_step.assign_add(tf.cast(~stop, self._global_step.dtype))
        made = tf.concat([report.terms, [report.norm, 1.0, 0.0]], 0)
        skipped = tf.constant([0.0] * (made.shape[0] - 1) + [1.0])
        self._sums.assign_add(tf.where(report.finite, made, skipped))
        return stop

    def _fail(self, batch, report: StepReport) -> None:
        local = self._strategy.experimental_local_results
        arrays = {name: np.concatenate([part.numpy() for part in local(values)]) for name, values in batch.items()}
        found = NonFinite.from_report(int(self._global_step.numpy()) + 1, self._step, report, arrays)
        kept = f". {self._on_failure(found)}" if self._on_failure else ""
        raise TrainingError(found.message(self._policy) + kept)

    def train_loop_begin(self):
        self._sums.assign(tf.zeros_like(self._sums))

    def train_loop_end(self) -> dict[str, tf.Tensor]:
        """Means over the loop: `losses/train_<term>`, `gradient_norm`; and the current rates of the optimizers.

        Where steps may be skipped also `skipped_steps`, the number of them in the loop; the means are over the others.
        With a loss scale `loss_scale`.
        """
        *sums, count, skipped = self._sums.numpy()
        *losses, norm = (value / count if count else math.nan for value in sums)
        logs = {f"losses/train_{name}": value for name, value in zip(self._step.loss_names, losses)}
        logs["gradient_norm"] = norm
        scale = self._step.loss_scale
        if self._policy.skips or scale is not None:
            logs["skipped_steps"] = skipped
        if scale is not None:
            logs["loss_scale"] = scale.value
        return {**logs, **self._step.optimizers.learning_rates(self._global_step)}
