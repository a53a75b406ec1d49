"""LAMB of tf-models-official: You et al., "Large Batch Optimization for Deep Learning", ICLR 2020."""

from __future__ import annotations

import tensorflow as tf
from official.modeling.optimization.lamb import LAMB


class LayerwiseAdam(LAMB):
    """LAMB whose weight decay is always the one it was made with.

    LAMB keeps it in a variable, so that a checkpoint would bring back the value of the run that wrote it.
    """

    def __init__(self, *args, weight_decay_rate: float = 0.0, name: str = "LAMB", **kwargs):
        super().__init__(*args, weight_decay_rate=weight_decay_rate, name=name, **kwargs)
        self._weight_decay = weight_decay_rate

    def _prepare_local(self, var_device, var_dtype, apply_state):
        super()._prepare_local(var_device, var_dtype, apply_state)
        apply_state[(var_device, var_dtype)]["weight_decay_rate"] = tf.constant(self._weight_decay, var_dtype)
