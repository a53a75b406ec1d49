"""Lookahead: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", NeurIPS 2019.

For the second line of dependencies, which has no tensorflow-addons. Its steps equal that library's, and each reads the
other's checkpoints; tests/training/optimizers/test_beside_addons.py holds both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

_SLOW = "slow"


class Lookahead(tf.keras.optimizers.legacy.Optimizer):
    """Slow weights follow those that another optimizer trains, which go on from there.

    Every `sync_period` steps, with theta the trained weights and phi the slow ones, which begin as the initial weights:

        phi <- phi + slow_step_size (theta - phi),   theta <- phi

    Args:
        optimizer: updates the weights in each step.
        sync_period: steps between two updates of the slow weights.
        slow_step_size: above 0, at most 1.
    """

    def __init__(
        self,
        optimizer: tf.keras.optimizers.legacy.Optimizer,
        sync_period: int,
        slow_step_size: float,
        name: str = "Lookahead",
        **kwargs: Any,
    ):
        super().__init__(name, **kwargs)
        self._optimizer = optimizer
        self._sync_period = sync_period
        self._slow_step_size = slow_step_size
        # The name that it has in tensorflow-addons' checkpoints.
        self._track_trackable(optimizer, "lh_base_optimizer")

    def _create_all_weights(self, var_list: list[tf.Variable]) -> None:
        # Both count the same steps; a checkpoint has the count once.
        self._optimizer._iterations = self.iterations
        self._optimizer._create_all_weights(var_list)
        super()._create_all_weights(var_list)

    def _create_slots(self, var_list: list[tf.Variable]) -> None:
        for variable in var_list:
            self.add_slot(variable, _SLOW, initializer=variable)

    def _prepare(self, var_list: list[tf.Variable]) -> dict[Any, Any]:
        return self._optimizer._prepare(var_list)

    def _resource_apply_dense(
        self, grad: tf.Tensor, var: tf.Variable, apply_state: dict[Any, Any] | None = None
    ) -> tf.Operation:
        step = self._optimizer._resource_apply_dense(grad, var, apply_state=apply_state)
        with tf.control_dependencies([step]):
            return self._look_ahead_op(var)

    def _resource_apply_sparse(
        self, grad: tf.Tensor, var: tf.Variable, indices: tf.Tensor, apply_state: dict[Any, Any] | None = None
    ) -> tf.Operation:
        step = self._optimizer._resource_apply_sparse(grad, var, indices, apply_state=apply_state)
        with tf.control_dependencies([step]):
            return self._look_ahead_op(var)

    def _look_ahead_op(self, var: tf.Variable) -> tf.Operation:
        """Brings slow and trained weights together, if the step that has just been taken is one of those.

        Its name is tensorflow-addons', whose class can so take over the two methods above.
        """
        slow = self.get_slot(var, _SLOW)
        # Counted up only after all variables have been updated.
        due = tf.equal((self.iterations + 1) % self._sync_period, 0)
        fast = var.read_value()
        together = slow + tf.cast(self._slow_step_size, fast.dtype) * (fast - slow)
        return tf.group(slow.assign(tf.where(due, together, slow)), var.assign(tf.where(due, together, fast)))

    @property
    def learning_rate(self) -> Any:
        """That of the optimizer inside."""
        return self._optimizer._get_hyper("learning_rate")

    @property
    def weights(self) -> list[tf.Variable]:
        """Its own variables, then those of the optimizer inside."""
        return [*self._weights, *self._optimizer.weights]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras wants them."""
        inner = tf.keras.optimizers.serialize(self._optimizer)
        own = {"optimizer": inner, "sync_period": self._sync_period, "slow_step_size": self._slow_step_size}
        return {**super().get_config(), **own}


def renew_slow_weights(optimizer: tf.keras.optimizers.legacy.Optimizer, variables: Iterable[tf.Variable]) -> None:
    """Makes the slow weights of an optimizer, if it has any, equal to the weights.

    Args:
        optimizer: any; also tensorflow-addons' Lookahead, whose slots have the same name.
        variables: those that it trains, with its slots created.
    """
    if _SLOW in optimizer.get_slot_names():
        for variable in variables:
            optimizer.get_slot(variable, _SLOW).assign(variable.read_value())
