"""The inner training loop: one step on every replica, repeated inside one TensorFlow graph."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence

import orbit
import tensorflow as tf

from deeplab2_kmax.trainer.errors import TrainingError
from deeplab2_kmax.trainer.optimizers import Optimizers

TOTAL_LOSS = "total_loss"
_NON_FINITE = "loss is not finite"
_IMAGE = "image"

Loss = Callable[[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]], Mapping[str, tf.Tensor]]


class Trainer(orbit.StandardTrainer):
    """Trains a model with orbit's loop.

    A step minimises the mean of `total_loss` over the global batch. A step whose loss or gradient is not finite stops
    training before it touches a weight.

    Args:
        model: `model(images [B, H, W, 3], training=True)` -> dict of outputs; float32, made in the strategy's scope.
        loss: `loss(targets, outputs)` -> dict of [B] float32 terms including `total_loss`.
        loss_names: the terms to report, `total_loss` among them.
        optimizers: made in the strategy's scope.
        dataset: distributed data set of batches, dicts with `image` and what the loss reads.
        global_step: int64 scalar variable, one more after each step.
        on_traced: called once, before the first step, with the seconds it took to trace the training graph and the
            names of trainable variables the loss does not depend on; these are left as they are.
        on_step: called after each step (not on TPUs); it must not wait for the device.
    """

    def __init__(
        self,
        *,
        model: tf.keras.Model,
        loss: Loss,
        loss_names: Sequence[str],
        optimizers: Optimizers,
        dataset,
        global_step: tf.Variable,
        on_traced: Callable[[float, Sequence[str]], None] | None = None,
        on_step: Callable[[], None] | None = None,
    ):
        self._strategy = tf.distribute.get_strategy()
        # Only TPUs gain from a loop in the graph. Elsewhere it takes longer to trace and to optimize, and makes the
        # process deaf to Ctrl-C.
        in_graph = isinstance(self._strategy, tf.distribute.TPUStrategy)
        super().__init__(dataset, orbit.StandardTrainerOptions(use_tf_while_loop=in_graph))
        self._model = model
        self._loss = loss
        self._optimizers = optimizers
        self._global_step = global_step
        self._on_traced = on_traced
        self._on_step = on_step
        self._loss_names = tuple(loss_names)
        # The sums of all terms since the loop began, of the gradient norm, and the count: one variable, because a Keras
        # metric for each would add hundreds of operations to every step.
        self._sums = tf.Variable(
            tf.zeros([len(self._loss_names) + 2]),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )
        self._without_gradient: list[str] = []

    def train(self, num_steps: tf.Tensor):
        """Runs `num_steps` steps; returns the scalars of `train_loop_end`.

        Raises:
            TrainingError: a loss was not finite.
        """
        if self._train_loop_fn is None:
            self._trace(num_steps)
        try:
            return super().train(num_steps)
        except tf.errors.InvalidArgumentError as error:
            raise _training_error(error) or error from error

    def _trace(self, num_steps: tf.Tensor) -> None:
        start = time.monotonic()
        self._train_iter = tf.nest.map_structure(iter, self.train_dataset)
        self._train_loop_fn = self.create_train_loop_fn()
        if self._train_options.use_tf_while_loop:
            self._train_loop_fn.get_concrete_function(self._train_iter, num_steps)
        if self._on_traced is not None:
            self._on_traced(time.monotonic() - start, self._without_gradient)

    def create_train_loop_fn(self):
        if self._train_options.use_tf_while_loop:
            return super().create_train_loop_fn()
        step_fn = tf.function(self.train_step)
        step_fn.get_concrete_function(self._train_iter)

        def run(iterator, num_steps):
            for _ in range(int(num_steps)):
                step_fn(iterator)
                if self._on_step is not None:
                    self._on_step()

        return run

    def train_loop_begin(self):
        self._sums.assign(tf.zeros_like(self._sums))

    def train_step(self, iterator):
        self._strategy.run(self._replica_step, args=(next(iterator),))

    def _replica_step(self, batch: Mapping[str, tf.Tensor]) -> None:
        with tf.GradientTape() as tape:
            outputs = self._model(batch[_IMAGE], training=True)
            terms = {name: tf.reduce_mean(term) for name, term in self._loss(batch, outputs).items()}
            # Gradients are summed over replicas, so each contributes its share of the mean.
            scaled = terms[TOTAL_LOSS] / self._strategy.num_replicas_in_sync
        pairs = self._with_gradient(tape.gradient(scaled, self._model.trainable_variables))
        gradients, variables = zip(*pairs)
        norm = tf.linalg.global_norm(gradients)
        with tf.control_dependencies([self._require_finite(terms, norm)]):
            gradients = [tf.identity(gradient) for gradient in self._clipped(gradients, norm)]
            self._optimizers.apply(zip(gradients, variables))
            self._global_step.assign_add(1)
            self._sums.assign_add(tf.stack([*(terms[name] for name in self._loss_names), norm, 1.0]))

    def _with_gradient(self, gradients) -> list[tuple[tf.Tensor, tf.Variable]]:
        variables = self._model.trainable_variables
        self._without_gradient = [v.name for g, v in zip(gradients, variables) if g is None]
        pairs = [(g, v) for g, v in zip(gradients, variables) if g is not None]
        if not pairs:
            raise TrainingError("the loss does not depend on any weight of the model")
        return pairs

    def _clipped(self, gradients, norm):
        limit = self._optimizers.clip_norm
        return gradients if limit is None else tf.clip_by_global_norm(gradients, limit, use_norm=norm)[0]

    def _require_finite(self, terms: Mapping[str, tf.Tensor], norm: tf.Tensor) -> tf.Operation:
        """Fails, with the step and the culprits in the message, where the total loss or its gradient is not finite.

        XLA drops such assertions; on TPUs `train_loop_end` finds out instead.
        """
        values = {**terms, "the gradient": norm}

        def fail():
            names = [tf.where(tf.math.is_finite(value), "", f"{name}, ") for name, value in values.items()]
            step = tf.strings.as_string(self._global_step + 1)
            message = tf.strings.join([f"<<{_NON_FINITE}|", step, "|", *names, ">>"])
            return tf.group(tf.debugging.Assert(False, [message]))

        return tf.cond(tf.math.is_finite(terms[TOTAL_LOSS]) & tf.math.is_finite(norm), tf.no_op, fail)

    def train_loop_end(self) -> dict[str, tf.Tensor]:
        """Means over the loop: `losses/train_<term>`, `gradient_norm`, and the current `learning_rate`."""
        *sums, count = self._sums.numpy()
        *losses, norm = (value / count for value in sums)
        bad = [name for name, value in zip(self._loss_names, losses) if not math.isfinite(value)]
        if bad:
            raise TrainingError(_explain(f"in the loop that ended at step {self._global_step.numpy()}", ", ".join(bad)))
        logs = {f"losses/train_{name}": value for name, value in zip(self._loss_names, losses)}
        logs["gradient_norm"] = norm
        logs["learning_rate"] = self._optimizers.learning_rate(self._global_step)
        return logs


def _training_error(error: tf.errors.InvalidArgumentError) -> TrainingError | None:
    found = re.search(rf"<<{re.escape(_NON_FINITE)}\|(\d+)\|(.*?)(, )?>>", str(error))
    return TrainingError(_explain(f"at step {found[1]}", found[2])) if found else None


def _explain(when: str, what: str) -> str:
    return (
        f"training stopped {when}: not finite: {what}. No weight was updated with it; the checkpoints written before"
        " are sound. A lower base_learning_rate, a longer warm-up or use_gradient_clipping usually help"
    )
