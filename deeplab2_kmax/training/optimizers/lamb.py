"""LAMB of tf-models-official: You et al., "Large Batch Optimization for Deep Learning", ICLR 2020."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from official.modeling.optimization.lamb import LAMB


class LayerwiseAdam(LAMB):
    """LAMB that always uses the weight decay it was made with.

    LAMB itself keeps the decay in a variable, so that a resumed run would go on with the value of the run that wrote
    the checkpoint, whatever its config says.
    """

    def __init__(self, *args: Any, weight_decay_rate: float = 0.0, name: str = "LAMB", **kwargs: Any):
        super().__init__(*args, weight_decay_rate=weight_decay_rate, name=name, **kwargs)
        self._weight_decay = weight_decay_rate

    def _prepare_local(self, var_device: str, var_dtype: tf.DType, apply_state: dict[Any, Any]) -> None:
        super()._prepare_local(var_device, var_dtype, apply_state)
        apply_state[(var_device, var_dtype)]["weight_decay_rate"] = tf.constant(self._weight_decay, var_dtype)
