"""How many parameters a config's network has, and what for: `count_parameters(config)`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import tensorflow as tf

from deeplab2_kmax.model import build_model
from deeplab2_kmax.protos import config_pb2

_PREDICTED = ("pixel_space_mask_logits", "transformer_class_logits")
_IMAGE = [1, 33, 33, 3]


@dataclasses.dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters of a network.

    Attributes:
        total: all variables, moving statistics of batch norms among them.
        trainable: what training changes by gradients.
        encoder: trainable ones of the pixel encoder.
        semantic_branch: trainable ones of the auxiliary semantic segmentation.
        inference: all variables that masks and classes depend on: neither the semantic branch nor the class heads of
            the decoder layers.
    """

    total: int
    trainable: int
    encoder: int
    semantic_branch: int
    inference: int

    @property
    def panoptic(self) -> int:
        """Trainable parameters without the semantic branch, which is what publications count."""
        return self.trainable - self.semantic_branch


def count_parameters(config: config_pb2.ExperimentOptions) -> ParameterCounts:
    """Counts in a graph that is built but not run, so that no memory is taken. Raises what `build_model` raises."""
    with tf.Graph().as_default():
        model = build_model(config)
        outputs = model(tf.zeros(_IMAGE), training=False)
        reached = _ancestors(outputs[name].op for name in _PREDICTED)
        used = [variable for variable in model.variables if variable.handle.op in reached]
        semantic = [part for part in (model.semantic_decoder, model.semantic_head) if part is not None]
        return ParameterCounts(
            total=_size(model.variables),
            trainable=_size(model.trainable_variables),
            encoder=_size(model.pixel_encoder.trainable_variables),
            semantic_branch=sum(_size(part.trainable_variables) for part in semantic),
            inference=_size(used),
        )


def _size(variables: Iterable[tf.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _ancestors(operations: Iterable[tf.Operation]) -> set[tf.Operation]:
    """All operations that the given ones depend on, and themselves."""
    reached: set[tf.Operation] = set()
    waiting = list(operations)
    while waiting:
        operation = waiting.pop()
        if operation not in reached:
            reached.add(operation)
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return reached
