"""One training step: batch -> loss terms -> gradients -> summed over replicas -> clipped -> applied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.errors import TrainingError
from deeplab2_kmax.training.optimizers import Optimizers
from deeplab2_kmax.training.step.accumulation import Accumulator, micro_batch
from deeplab2_kmax.training.step.loss_scale import LossScale

TOTAL_LOSS = "total_loss"
IMAGE = "image"

Loss = Callable[[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]
Batch = Mapping[str, tf.Tensor]


class StepReport(NamedTuple):
    """What a step found; the same on all replicas.

    Attributes:
        terms: [loss names] float32, each term's mean over the global batch.
        norm: scalar float32, norm of the gradient before clipping: of the sum over replicas with
            `Optimizers.clip_sum`, else the mean of the replicas' own.
        squares: [trainable weights] float32, half the squared norm of each weight's gradient, likewise; 0 where the
            loss does not depend on the weight.
        finite: scalar bool; False: something of the above is not finite, and nothing was changed.
        overflowed: scalar bool; not finite only because the loss scale was too large. It is smaller now.
    """

    terms: tf.Tensor
    norm: tf.Tensor
    squares: tf.Tensor
    finite: tf.Tensor
    overflowed: tf.Tensor


class Pending(NamedTuple):
    """What a step has found out and not done yet, on each replica.

    Attributes:
        gradients: of the weights that have one, clipped and summed over replicas.
        statistics: what the forward pass has changed, as it was before.
    """

    gradients: list[tf.Tensor]
    statistics: list[tf.Tensor]


class TrainStep:
    """Updates a model's weights once a call.

    Called, it does all of a step in one graph, for loops in a graph. A loop on the host calls `look`, reads whether
    what came out is finite, and calls `apply` or `put_back`: a condition in the graph around all optimizers would take
    longer to trace and to optimize than the optimizers themselves.

    A step minimises the mean of `total_loss` over the global batch. A loss or gradient that is not finite on any
    replica is found before anything is changed: the replicas agree on it, and none of them touches a weight, an
    optimizer's state or a moving statistic. That is decided by a value in the graph, not by an assertion, so that it
    works where XLA compiles the step.

    Nothing in here runs Python on the host, and all shapes are static.

    With `micro_batches` each replica cuts its batch into so many equal parts and works on one after the other; the
    gradients' mean is what updates the weights. Batch statistics are then each part's own.

    Args:
        model: `model(images [B, H, W, 3], training=True)` -> dict of outputs; float32, made in the strategy's scope.
        loss: `loss(targets, outputs)` -> dict of [B] float32 terms including `total_loss`.
        loss_names: the terms to report, `total_loss` among them.
        optimizers: made in the strategy's scope.
        draws: gives the context in which model and loss draw random numbers for a part of a batch, counted from 0; see
            `random_draws`.
        compiled: XLA compiles what a replica does; TPUs always do.
        micro_batches: see above; a replica's batch is a multiple of it.
        loss_scale: of a model with float16 inside.
    """

    def __init__(
        self,
        *,
        model: tf.keras.Model,
        loss: Loss,
        loss_names: Sequence[str],
        optimizers: Optimizers,
        draws: Callable[[tf.Tensor | int], contextlib.AbstractContextManager] = contextlib.nullcontext,
        compiled: bool = False,
        micro_batches: int = 1,
        loss_scale: LossScale | None = None,
    ):
        self.loss_names = tuple(loss_names)
        self.model = model
        self.optimizers = optimizers
        self._strategy = tf.distribute.get_strategy()
        self._loss = loss
        self._draws = draws
        self._compiled = compiled
        self._micro_batches = micro_batches
        self.loss_scale = loss_scale
        self._accumulator = None
        if micro_batches > 1:
            self._accumulator = Accumulator(model.trainable_variables, len(self.loss_names))
        self._has_gradient: list[bool] = []

    @property
    def without_gradient(self) -> list[str]:
        """Names of trainable variables the loss does not depend on; known once the step has been traced."""
        return [v.name for v, has in zip(self.model.trainable_variables, self._has_gradient) if not has]

    def __call__(self, batch: Batch) -> StepReport:
        """Runs on all replicas; `batch` is what the distributed data set gives. Call it in a tf.function."""
        return self._scaling(self._of_first_replica(self._begun(batch, self._update_if_finite)))

    def look(self, batch: Batch) -> tuple[StepReport, Pending]:
        """The first half of a step: it changes moving statistics, and no weight. Call it in a tf.function."""
        report, pending = self._begun(batch, lambda *found: found)
        return self._scaling(self._of_first_replica(report)), pending

    def _scaling(self, report: StepReport) -> StepReport:
        """Tells an overflow from a fault, and the loss scale of both."""
        if self.loss_scale is None:
            return report
        report = report._replace(overflowed=self.loss_scale.overflowed(report.terms, report.finite))
        self.loss_scale.update(report.finite, report.overflowed)
        return report

    def apply(self, pending: Pending) -> None:
        """Updates the weights. Call it in a tf.function."""
        self._run(self._apply, pending)

    def put_back(self, pending: Pending) -> None:
        """Makes moving statistics what they were before `look`. Call it in a tf.function."""
        self._run(self._put_back, pending)

    def _begun(self, batch: Batch, end: Callable[[StepReport, Pending], NamedTuple]):
        """What `end` makes of report and gradients, on every replica."""
        if self._accumulator is None:
            return self._run(lambda batch: end(*self._whole(batch)), batch)
        statistics = self._run(self._begin)

        def add(index):
            self._run(self._add, batch, index)
            return index + 1

        tf.while_loop(lambda index: index < self._micro_batches, add, [tf.constant(0)], parallel_iterations=1)
        return self._run(lambda statistics: end(*self._sums(statistics)), statistics)

    def _run(self, function: Callable, *args):
        if self._compiled:
            function = tf.function(function, jit_compile=True, autograph=False)
        return self._strategy.run(function, args=args)

    def _of_first_replica(self, report: StepReport) -> StepReport:
        return tf.nest.map_structure(lambda value: self._strategy.experimental_local_results(value)[0], report)

    # From here on in replica context ---------------------------------------------------------------------------------

    def _whole(self, batch: Batch) -> tuple[StepReport, Pending]:
        statistics = self._statistics()
        return self._found(*self._gradients(batch, 0), statistics)

    def _begin(self) -> list[tf.Tensor]:
        self._accumulator.reset()
        return self._statistics()

    def _add(self, batch: Batch, index: tf.Tensor) -> None:
        self._accumulator.add(*self._gradients(micro_batch(batch, index, self._micro_batches), index))

    def _sums(self, statistics: list[tf.Tensor]) -> tuple[StepReport, Pending]:
        gradients, terms = self._accumulator.sums()
        gradients = [gradient if has else None for gradient, has in zip(gradients, self._has_gradient)]
        return self._found(gradients, terms, statistics)

    def _statistics(self) -> list[tf.Tensor]:
        """What a forward pass changes, as it was before: to be put back where the pass turns out not to be finite."""
        return [variable.read_value() for variable in self.model.non_trainable_variables]

    def _gradients(self, batch: Batch, index: tf.Tensor | int) -> tuple[list[tf.Tensor | None], tf.Tensor]:
        """Of part `index` of a replica's batch: gradients of its share of the loss, and its mean terms [loss names].

        Gradients are summed over parts and replicas, so each contributes its share of the mean; so do the terms of the
        parts.
        """
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape, self._draws(index):
            outputs = self.model(batch[IMAGE], training=True)
            terms = self._loss(batch, outputs)
            terms = {name: tf.reduce_mean(term) / self._micro_batches for name, term in terms.items()}
            share = terms[TOTAL_LOSS] / self._strategy.num_replicas_in_sync
            if self.loss_scale is not None:
                share = self.loss_scale.scaled(share)
        gradients = tape.gradient(share, variables)
        if self.loss_scale is not None:
            gradients = self.loss_scale.unscaled(gradients)
        self._has_gradient = [gradient is not None for gradient in gradients]
        if not any(self._has_gradient):
            raise TrainingError("the loss does not depend on any weight of the model")
        return gradients, tf.stack([terms[name] for name in self.loss_names])

    def _found(
        self, gradients: list[tf.Tensor | None], terms: tf.Tensor, statistics: list[tf.Tensor]
    ) -> tuple[StepReport, Pending]:
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
        if self.optimizers.clip_sum:
            gradients = self._sum_over_replicas(gradients)
        squares = [tf.nn.l2_loss(gradient) for gradient in gradients]
        norm = tf.sqrt(2.0 * tf.add_n(squares))
        gradients = self._clipped(gradients, norm)
        if not self.optimizers.clip_sum:
            gradients = self._sum_over_replicas(gradients)
        return self._report(terms, norm, squares), Pending(gradients, statistics)

    def _clipped(self, gradients: list[tf.Tensor], norm: tf.Tensor) -> list[tf.Tensor]:
        limit = self.optimizers.clip_norm
        return gradients if limit is None else tf.clip_by_global_norm(gradients, limit, use_norm=norm)[0]

    def _sum_over_replicas(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        if self._strategy.num_replicas_in_sync == 1:
            return tensors
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensors)

    def _report(self, terms: tf.Tensor, norm: tf.Tensor, squares: list[tf.Tensor]) -> StepReport:
        """The same on every replica; what is not finite on one of them is not finite anywhere."""
        squares = iter(squares)
        of_all = [next(squares) if has else tf.zeros([]) for has in self._has_gradient]
        values = tf.concat([terms, [norm], of_all], 0)
        replicas = self._strategy.num_replicas_in_sync
        if replicas > 1:
            (values,) = self._sum_over_replicas([values / replicas])
        finite = tf.reduce_all(tf.math.is_finite(values))
        terms, norm, squares = tf.split(values, [len(self.loss_names), 1, len(of_all)])
        return StepReport(terms, norm[0], squares, finite, overflowed=tf.constant(False))

    def _update_if_finite(self, report: StepReport, pending: Pending) -> StepReport:
        _cond_on_replicas(report.finite, self._apply, self._put_back, (pending,))
        return report

    def _apply(self, pending: Pending) -> None:
        trained = [v for v, has in zip(self.model.trainable_variables, self._has_gradient) if has]
        self.optimizers.apply(zip(pending.gradients, trained), aggregated=True)

    def _put_back(self, pending: Pending) -> None:
        for variable, value in zip(self.model.non_trainable_variables, pending.statistics):
            variable.assign(value)


def _cond_on_replicas(condition: tf.Tensor, if_true: Callable, if_false: Callable, args: tuple) -> None:
    """Calls `if_true(*args)` or `if_false(*args)` in replica context; the condition is the same on all replicas.

    Where replicas meet in one thread to update variables (`merge_call`), they cannot do so inside a condition of their
    own; there one condition is put around all of them.
    """

    def choose(strategy, condition, *args):
        def each(function):
            strategy.extended.call_for_each_replica(function, args=args)

        one = strategy.experimental_local_results(condition)[0]
        tf.cond(one, _without_result(lambda: each(if_true)), _without_result(lambda: each(if_false)))

    if tf.__internal__.distribute.strategy_supports_no_merge_call():
        tf.cond(condition, _without_result(lambda: if_true(*args)), _without_result(lambda: if_false(*args)))
    else:
        tf.distribute.get_replica_context().merge_call(choose, args=(condition, *args))


def _without_result(function: Callable) -> Callable:
    def call():
        function()
        return tf.no_op()

    return call
