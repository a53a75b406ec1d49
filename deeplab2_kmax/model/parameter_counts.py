"""Counts the parameters of a config's network, by purpose: `count_parameters(config)`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import tensorflow as tf

from deeplab2_kmax.model import build_model
from deeplab2_kmax.protos import config_pb2

# The outputs that panoptic maps are made from.
PREDICTED = ("pixel_space_mask_logits", "transformer_class_logits")
# The numbers of parameters do not depend on the size of the image.
_IMAGE = [1, 33, 33, 3]


@dataclasses.dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters of a network.

    Attributes:
        total: all variables, including the moving statistics of batch norms.
        trainable: variables that training changes by gradients.
        encoder: trainable variables of the pixel encoder.
        semantic_branch: trainable variables of the auxiliary semantic segmentation.
        inference: all variables that masks and classes depend on. The semantic branch and the class heads of the
            decoder layers are not among them.
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
    """Counts the parameters of the network of `config`.

    Raises:
        ConfigError: where `build_model` raises it.
    """
    # The graph is built but never run, so that variables take no memory and counting is quick.
    with tf.Graph().as_default():
        model = build_model(config)
        outputs = model(tf.zeros(_IMAGE), training=False)
        reached = ancestors(outputs[name].op for name in PREDICTED)
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


def ancestors(operations: Iterable[tf.Operation]) -> set[tf.Operation]:
    """The given operations and all that they depend on."""
    reached: set[tf.Operation] = set()
    waiting = list(operations)
    while waiting:
        operation = waiting.pop()
        if operation not in reached:
            reached.add(operation)
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return reached
