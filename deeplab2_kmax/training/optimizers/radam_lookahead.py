"""RectifiedAdam and Lookahead as MaX-DeepLab's and CMT-DeepLab's recipe needs them.

They are tensorflow-addons' where it is installed, else our own (`rectified_adam`, `lookahead`), whose steps and
checkpoints are the same.
"""

from __future__ import annotations

import re
from typing import Any

import tensorflow as tf

from deeplab2_kmax.dependency_lines import tensorflow_addons_optimizers
from deeplab2_kmax.training.optimizers.lookahead import Lookahead
from deeplab2_kmax.training.optimizers.param_groups import DECAYED_VARIABLES
from deeplab2_kmax.training.optimizers.rectified_adam import RectifiedAdam

_addons = tensorflow_addons_optimizers()
_RectifiedAdamBase: Any = RectifiedAdam if _addons is None else _addons.RectifiedAdam
_LookaheadBase: Any = Lookahead if _addons is None else _addons.Lookahead


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


class _RectifiedAdam(_RectifiedAdamBase):
    """RectifiedAdam with weight decay of kernels only, as with adamw; that of tensorflow-addons is of all."""

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


class _Lookahead(_LookaheadBase):
    """Lookahead whose steps pass on `apply_state`, what the inner optimizer prepared for a step.

    Those of tensorflow-addons drop it, so that the inner optimizer computes it again for every variable, and
    AdamWeightDecay, which counts on it, fails.
    """

    _resource_apply_dense = Lookahead._resource_apply_dense
    _resource_apply_sparse = Lookahead._resource_apply_sparse
