"""One training step: batch -> loss terms -> gradients -> summed over replicas, clipped -> applied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from deeplab2_kmax.errors import TrainingError
from deeplab2_kmax.losses.total import TOTAL
from deeplab2_kmax.model.layers.normalization import xla_compiled
from deeplab2_kmax.training.optimizers import Optimizers
from deeplab2_kmax.training.step.accumulation import Accumulator, micro_batch
from deeplab2_kmax.training.step.loss_scale import LossScale

_IMAGE = "image"

Loss = Callable[[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]
Batch = Mapping[str, tf.Tensor]


class StepReport(NamedTuple):
    """What a step found; the same on all replicas.

    Attributes:
        terms: [loss names] float32, the mean of each loss term over the global batch.
        norm: scalar float32, global norm of the gradients before clipping: of the gradients summed over replicas with
            `Optimizers.clip_sum`, else the mean of the replicas' own norms.
        squares: [trainable weights] float32, half the squared norm of each weight's gradient, summed or averaged like
            `norm`; 0 where the loss does not depend on the weight.
        statistics: [non-trainable variables] float32, 0; NaN where the value that the forward pass gave a moving
            statistic is not finite. Such a value would spoil every later evaluation, however sound the loss is.
        finite: scalar bool; False if any of the above is not finite. Such a step changes nothing.
        overflowed: scalar bool; True if the step is not finite only because the loss scale was too large. The scale
            has then been made smaller.
    """

    terms: tf.Tensor
    norm: tf.Tensor
    squares: tf.Tensor
    statistics: tf.Tensor
    finite: tf.Tensor
    overflowed: tf.Tensor


class PendingUpdate(NamedTuple):
    """What each replica needs to complete a step after its backward pass.

    Attributes:
        gradients: of the weights that have one, clipped and summed over replicas.
        statistics: the values that the model's non-trainable variables (moving statistics) had before the forward pass.
    """

    gradients: list[tf.Tensor]
    statistics: list[tf.Tensor]


class TrainStep:
    """Updates a model's weights, one batch at a time.

    A step minimizes the mean of `total_loss` over the global batch. There are two ways to make one:

    - Calling the object makes the whole step in one graph; for loops inside a graph, as on TPUs.
    - A loop on the host calls `forward_backward`, reads from the report whether all values are finite, and then calls
      either `apply_gradients` or `restore_statistics`, each a graph of its own. One graph would need a `tf.cond` around
      all optimizers, which takes longer to trace and to optimize than the optimizers themselves.

    A loss or gradient that is not finite on any replica is found before anything is changed for good: the replicas
    agree on it, and none of them changes a weight, an optimizer's state or a moving statistic. The graph returns this
    as a value instead of asserting it, because XLA drops assertions.

    No part of a step runs Python code on the host, and all shapes are static, so that XLA can compile it.

    With `micro_batches` above 1 each replica cuts its batch into that many equal parts and works on one after the
    other; the mean of their gradients updates the weights. Batch norms then use the statistics of one part at a time.

    Args:
        model: `model(images [B, H, W, 3], training=True)` -> dict of outputs; made in the strategy's scope.
        loss: `loss(batch, outputs)` -> dict of [B] float32 terms, `total_loss` among them.
        loss_names: the terms to report, `total_loss` among them.
        optimizers: made in the strategy's scope.
        draws: maps the number of a micro-batch, from 0, to the context in which the model and the loss draw their
            random numbers for it; see `deeplab2_kmax.random_draws`.
        compiled: whether XLA compiles what a replica does; on TPUs it always does.
        micro_batches: the number of parts, see above; has to divide a replica's batch.
        loss_scale: for a model that computes in float16.
    """

    def __init__(
        self,
        *,
        model: tf.keras.Model,
        loss: Loss,
        loss_names: Sequence[str],
        optimizers: Optimizers,
        draws: Callable[[tf.Tensor | int], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        compiled: bool = False,
        micro_batches: int = 1,
        loss_scale: LossScale | None = None,
    ):
        self.loss_names = tuple(loss_names)
        self.model = model
        self.optimizers = optimizers
        self.loss_scale = loss_scale
        self._strategy = tf.distribute.get_strategy()
        self._loss = loss
        self._draws = draws
        self._compiled = compiled
        self._micro_batches = micro_batches
        self._accumulator: Accumulator | None = None
        if micro_batches > 1:
            self._accumulator = Accumulator(model.trainable_variables, len(self.loss_names))
        # Whether the loss depends on each trainable variable; filled in while the step is traced.
        self._has_gradient: list[bool] = []

    @property
    def without_gradient(self) -> list[str]:
        """Names of trainable variables the loss does not depend on; known once the step has been traced."""
        return [v.name for v, has in zip(self.model.trainable_variables, self._has_gradient) if not has]

    def __call__(self, batch: Batch) -> StepReport:
        """Makes a whole step on all replicas; call it in a tf.function.

        Args:
            batch: what the distributed data set yields.
        """
        return self._with_loss_scale(self._of_first_replica(self._on_replicas(batch, self._update_if_finite)))

    def forward_backward(self, batch: Batch) -> tuple[StepReport, PendingUpdate]:
        """The first half of a step: loss and gradients. Call it in a tf.function.

        It changes moving statistics, as every forward pass in training does, but no weight. `apply_gradients` or
        `restore_statistics` has to follow.
        """

        def unchanged(report: StepReport, pending: PendingUpdate) -> tuple[StepReport, PendingUpdate]:
            return report, pending

        report, pending = self._on_replicas(batch, unchanged)
        return self._with_loss_scale(self._of_first_replica(report)), pending

    def apply_gradients(self, pending: PendingUpdate) -> None:
        """The second half of a step that is finite: updates the weights. Call it in a tf.function."""
        self._run(self._apply_gradients, pending)

    def restore_statistics(self, pending: PendingUpdate) -> None:
        """The second half of a step that is not finite: moving statistics become what they were before the step.

        Call it in a tf.function.
        """
        self._run(self._restore_statistics, pending)

    def _with_loss_scale(self, report: StepReport) -> StepReport:
        """Marks a step that only a smaller loss scale can mend, and adjusts the scale."""
        if self.loss_scale is None:
            return report
        # The scale has no part in the forward pass, which makes the loss terms and the moving statistics.
        of_forward_pass = tf.concat([report.terms, report.statistics], 0)
        report = report._replace(overflowed=self.loss_scale.overflowed(of_forward_pass, report.finite))
        self.loss_scale.update(report.finite, report.overflowed)
        return report

    def _on_replicas(self, batch: Batch, finish: Callable[[StepReport, PendingUpdate], Any]) -> Any:
        """Runs forward and backward pass and then `finish(report, pending)` on every replica; returns its result."""
        accumulator = self._accumulator
        if accumulator is None:
            return self._run(lambda batch: finish(*self._whole_batch(batch)), batch)

        def begin() -> list[tf.Tensor]:
            accumulator.reset()
            return self._statistics()

        def add(batch: Batch, index: tf.Tensor) -> None:
            accumulator.add(*self._gradients(micro_batch(batch, index, self._micro_batches), index))

        def end(statistics: list[tf.Tensor]) -> Any:
            sums, terms = accumulator.sums()
            gradients = [gradient if has else None for gradient, has in zip(sums, self._has_gradient)]
            return finish(*self._reduced(gradients, terms, statistics))

        def next_part(index: tf.Tensor) -> tf.Tensor:
            self._run(add, batch, index)
            return index + 1

        statistics = self._run(begin)
        # One part after the other: parts side by side would need the memory of the whole batch.
        tf.while_loop(lambda index: index < self._micro_batches, next_part, [tf.constant(0)], parallel_iterations=1)
        return self._run(end, statistics)

    def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        if self._compiled:
            function = xla_compiled(function)
        return self._strategy.run(function, args=args)

    def _of_first_replica(self, report: StepReport) -> StepReport:
        first: StepReport = tf.nest.map_structure(
            lambda value: self._strategy.experimental_local_results(value)[0], report
        )
        return first

    # The methods below run in replica context. ------------------------------------------------------------------------

    def _whole_batch(self, batch: Batch) -> tuple[StepReport, PendingUpdate]:
        statistics = self._statistics()  # Before the forward pass changes them.
        return self._reduced(*self._gradients(batch, 0), statistics)

    def _statistics(self) -> list[tf.Tensor]:
        """The present values of all variables that a forward pass may change."""
        return [variable.read_value() for variable in self.model.non_trainable_variables]

    def _gradients(self, batch: Batch, index: tf.Tensor | int) -> tuple[list[tf.Tensor | None], tf.Tensor]:
        """Gradients and loss terms of one micro-batch.

        Both are divided by the number of micro-batches, and gradients by the number of replicas as well: summed over
        micro-batches and replicas they become means over the global batch.

        Args:
            batch: the images and targets of the micro-batch.
            index: its number.

        Returns:
            A gradient for each trainable variable, None where there is none, and the loss terms [loss names].
        """
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape, self._draws(index):
            outputs = self.model(batch[_IMAGE], training=True)
            terms = self._loss(batch, outputs)
            terms = {name: tf.reduce_mean(term) / self._micro_batches for name, term in terms.items()}
            share = terms[TOTAL] / self._strategy.num_replicas_in_sync
            if self.loss_scale is not None:
                share = self.loss_scale.scaled(share)
        gradients = tape.gradient(share, variables)
        if self.loss_scale is not None:
            gradients = self.loss_scale.unscaled(gradients)
        self._has_gradient = [gradient is not None for gradient in gradients]
        if not any(self._has_gradient):
            raise TrainingError("the loss does not depend on any weight of the model")
        return gradients, tf.stack([terms[name] for name in self.loss_names])

    def _reduced(
        self, gradients: list[tf.Tensor | None], terms: tf.Tensor, statistics: list[tf.Tensor]
    ) -> tuple[StepReport, PendingUpdate]:
        """Clips this replica's gradients and sums them over replicas; reports what it found."""
        # Lookups in a table, as of relative positions, have sparse gradients with an entry for each use. Converting
        # them adds these up, so that the norm is that of the gradient itself; DeepLab2 counts each use on its own.
        present = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
        if self.optimizers.clip_sum:
            present = self._sum_over_replicas(present)
        # The norm is made of the same squares that tell which weight's gradient is not finite, so each gradient is read
        # once for both.
        squares = [tf.nn.l2_loss(gradient) for gradient in present]
        norm = tf.sqrt(2.0 * tf.add_n(squares))
        present = self._clipped(present, norm)
        if not self.optimizers.clip_sum:
            # DeepLab2's order: each replica clips its own share, 1/replicas of the mean, and then they are summed. The
            # result depends on how many replicas share the batch; `clip_sum` does not.
            present = self._sum_over_replicas(present)
        return self._report(terms, norm, squares), PendingUpdate(present, statistics)

    def _clipped(self, gradients: list[tf.Tensor], norm: tf.Tensor) -> list[tf.Tensor]:
        limit = self.optimizers.clip_norm
        if limit is None:
            return gradients
        clipped: list[tf.Tensor] = tf.clip_by_global_norm(gradients, limit, use_norm=norm)[0]
        return clipped

    def _sum_over_replicas(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        if self._strategy.num_replicas_in_sync == 1:
            return tensors
        sums: list[tf.Tensor] = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensors)
        return sums

    def _report(self, terms: tf.Tensor, norm: tf.Tensor, squares: list[tf.Tensor]) -> StepReport:
        """The report of all replicas together; what is not finite on one of them is not finite in it."""
        of_gradients = iter(squares)
        of_weights = [next(of_gradients) if has else tf.zeros([]) for has in self._has_gradient]
        of_statistics = [_zero_if_finite(value) for value in self._statistics()]
        # One tensor, so that the replicas exchange all figures at once.
        values = tf.concat([terms, [norm], of_weights, of_statistics], 0)
        replicas = self._strategy.num_replicas_in_sync
        if replicas > 1:
            # NaN and infinity survive the sum, so all replicas come to the same decision.
            (values,) = self._sum_over_replicas([values / replicas])
        finite = tf.reduce_all(tf.math.is_finite(values))
        terms, norm, all_squares, statistics = tf.split(
            values, [len(self.loss_names), 1, len(of_weights), len(of_statistics)]
        )
        return StepReport(terms, norm[0], all_squares, statistics, finite, overflowed=tf.constant(False))

    def _update_if_finite(self, report: StepReport, pending: PendingUpdate) -> StepReport:
        _cond_on_replicas(report.finite, self._apply_gradients, self._restore_statistics, (pending,))
        return report

    def _apply_gradients(self, pending: PendingUpdate) -> None:
        trained = [v for v, has in zip(self.model.trainable_variables, self._has_gradient) if has]
        self.optimizers.apply(zip(pending.gradients, trained), aggregated=True)

    def _restore_statistics(self, pending: PendingUpdate) -> None:
        for variable, value in zip(self.model.non_trainable_variables, pending.statistics):
            variable.assign(value)


def _zero_if_finite(value: tf.Tensor) -> tf.Tensor:
    """Scalar float32: 0 if all elements are finite, else NaN, which survives a sum over replicas."""
    return tf.where(tf.reduce_all(tf.math.is_finite(tf.cast(value, tf.float32))), 0.0, float("nan"))


def _cond_on_replicas(
    condition: tf.Tensor, if_true: Callable[..., None], if_false: Callable[..., None], args: tuple[Any, ...]
) -> None:
    """Calls `if_true(*args)` or `if_false(*args)` in replica context.

    Some strategies update variables in a `merge_call`, where all replicas meet in one thread. That is not allowed
    inside a `tf.cond` of a single replica; there one `tf.cond` is put around the calls of all replicas.

    Args:
        condition: scalar bool, the same on all replicas.
        if_true: called where it is True.
        if_false: called where it is False.
        args: this replica's arguments of both.
    """

    def choose(strategy: tf.distribute.Strategy, condition: Any, *args: Any) -> None:
        def on_each(function: Callable[..., None]) -> None:
            strategy.extended.call_for_each_replica(function, args=args)

        of_first = strategy.experimental_local_results(condition)[0]
        tf.cond(of_first, _without_result(lambda: on_each(if_true)), _without_result(lambda: on_each(if_false)))

    if tf.__internal__.distribute.strategy_supports_no_merge_call():
        tf.cond(condition, _without_result(lambda: if_true(*args)), _without_result(lambda: if_false(*args)))
    else:
        tf.distribute.get_replica_context().merge_call(choose, args=(condition, *args))


def _without_result(function: Callable[[], None]) -> Callable[[], tf.Operation]:
    """A branch for `tf.cond`, whose branches have to return the same structure."""

    def call() -> tf.Operation:
        function()
        return tf.no_op()

    return call
