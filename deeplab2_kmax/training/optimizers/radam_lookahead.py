"""RectifiedAdam and Lookahead of tensorflow-addons, for MaX-DeepLab's and CMT-DeepLab's recipe.

RectifiedAdam: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020.
Lookahead: Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", NeurIPS 2019.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.training.optimizers.param_groups import DECAYED_VARIABLES

try:
    with warnings.catch_warnings():
        # On every import it says that its development has ended.
        warnings.simplefilter("ignore")
        from tensorflow_addons.optimizers import Lookahead, RectifiedAdam
except ImportError as error:
    raise ConfigError(
        'optimizer "radam" and lookahead_sync_period need tensorflow-addons, which is not installed and does not exist'
        f' for Python 3.12 and later ({error}). Use Python 3.9 to 3.11, or optimizer: "adamw" with'
        " lookahead_sync_period: 0 and warmup_steps: RectifiedAdam is Adam with a warm-up of its own"
    ) from error


def rectified_adam(
    rate: tf.keras.optimizers.schedules.LearningRateSchedule, weight_decay: float
) -> tf.keras.optimizers.legacy.Optimizer:
    """RectifiedAdam with decoupled weight decay of kernels.

    Args:
        rate: the learning rate.
        weight_decay: kernels shrink by `rate * weight_decay` in each step.
    """
    return _RectifiedAdam(rate, kernel_decay=weight_decay)


def lookahead(
    optimizer: tf.keras.optimizers.legacy.Optimizer, sync_period: int, slow_step_size: float
) -> tf.keras.optimizers.legacy.Optimizer:
    """Lookahead around `optimizer`; its slow weights are the slots named `slow`.

    Args:
        optimizer: updates the weights.
        sync_period: steps between two updates of the slow weights.
        slow_step_size: how far the slow weights go towards the others, above 0, at most 1.
    """
    return _Lookahead(optimizer, sync_period=sync_period, slow_step_size=slow_step_size)


class _RectifiedAdam(RectifiedAdam):
    """RectifiedAdam with weight decay of kernels only, as with adamw; its own applies to all variables."""

    def __init__(self, *args: Any, kernel_decay: float = 0.0, name: str = "RectifiedAdam", **kwargs: Any):
        super().__init__(*args, name=name, **kwargs)
        self._kernel_decay = kernel_decay

    def _resource_apply_dense(
        self, grad: tf.Tensor, var: tf.Variable, apply_state: dict[Any, Any] | None = None
    ) -> tf.Operation:
        if not self._kernel_decay or not re.search(DECAYED_VARIABLES, var.name):
            return super()._resource_apply_dense(grad, var, apply_state)
        assert apply_state is not None  # Keras always passes it; the default is in its signature.
        rate = apply_state[(var.device, var.dtype.base_dtype)]["lr_t"]
        decay = var.assign_sub(rate * self._kernel_decay * var, use_locking=self._use_locking)
        with tf.control_dependencies([decay]):
            return super()._resource_apply_dense(grad, var, apply_state)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras wants them."""
        return {**super().get_config(), "kernel_decay": self._kernel_decay}


class _Lookahead(Lookahead):
    """Lookahead that passes on `apply_state`, what the inner optimizer prepared for a step.

    Lookahead itself drops it, so that the inner optimizer computes it again for every variable, and AdamWeightDecay,
    which counts on it, fails.
    """

    def _resource_apply_dense(
        self, grad: tf.Tensor, var: tf.Variable, apply_state: dict[Any, Any] | None = None
    ) -> tf.Operation:
        step = self._optimizer._resource_apply_dense(grad, var, apply_state=apply_state)
        with tf.control_dependencies([step]):
            return tf.group(step, self._look_ahead_op(var))
