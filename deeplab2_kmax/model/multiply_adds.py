"""Counts the multiply-adds of a config's network: `count_multiply_adds(config)`.

Counted are the operations in which sums of products are formed: convolutions, matrix products and einsums. Everything
else, such as norms and activations, takes a few operations for each number, and next to none of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.parameter_counts import PREDICTED, ancestors
from deeplab2_kmax.protos import config_pb2


def count_multiply_adds(config: config_pb2.ExperimentOptions) -> int:
    """Counts what the network of `config` computes of one image, to get mask logits and class logits.

    Args:
        config: from `load_config`; the image has `eval_dataset_options.crop_size`.

    Returns:
        The number of multiply-adds. One is two floating-point operations (FLOP).

    Raises:
        ConfigError: where `build_model` raises it.
    """
    # As for parameters: a graph that is built, but never run.
    with tf.Graph().as_default():
        model = build_model(config)
        outputs = model(tf.zeros([1, *config.eval_dataset_options.crop_size, 3]), training=False)
        return multiply_adds(ancestors(outputs[name].op for name in PREDICTED))


def multiply_adds(operations: Iterable[tf.Operation]) -> int:
    """The multiply-adds of operations of a graph, in one run of each.

    Raises:
        ValueError: the shapes of one are not known, or it calls a function, whose body is not looked into.
    """
    total = 0
    for operation in operations:
        if operation.type in _CALLS:
            raise ValueError(f"{operation.name}: expected a graph without calls of functions, got {operation.type}")
        if operation.type in _COUNTS:
            tensors = [*operation.inputs, *operation.outputs]
            if not all(tensor.shape.is_fully_defined() for tensor in tensors):
                shapes = ", ".join(str(tensor.shape) for tensor in tensors)
                raise ValueError(f"{operation.name}: expected known shapes, got {shapes}; trace it with a fixed size")
            total += _COUNTS[operation.type](operation)
    return total


def _of_convolution(operation: Any) -> int:
    # Of the filter [height, width, input channels of a group, output channels], a result has met all but the last.
    return math.prod(operation.outputs[0].shape) * math.prod(operation.inputs[1].shape[:3])


def _of_depthwise_convolution(operation: Any) -> int:
    return math.prod(operation.outputs[0].shape) * math.prod(operation.inputs[1].shape[:2])


def _of_product(transposed: str) -> Callable[[Any], int]:
    """For products of matrices, of which the attribute `transposed` says whether the left one is turned."""

    def count(operation: Any) -> int:
        summed = operation.inputs[0].shape[-2 if operation.get_attr(transposed) else -1]
        return math.prod(operation.outputs[0].shape) * summed

    return count


def _of_einsum(operation: Any) -> int:
    """The product of the sizes of all letters; "..." stands for the dimensions that the letters leave over."""
    terms, _, result = operation.get_attr("equation").decode().partition("->")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms.split(","), operation.inputs):
        first, _, last = term.partition("...")
        shape = list(tensor.shape)
        sizes.update(zip(first, shape))
        sizes.update(zip(last, shape[len(shape) - len(last) :]))
    letters = result.replace("...", "")
    left_over = math.prod(operation.outputs[0].shape) // math.prod(sizes[letter] for letter in letters)
    return math.prod(sizes.values()) * left_over


_COUNTS: dict[str, Callable[[Any], int]] = {
    "Conv2D": _of_convolution,
    "DepthwiseConv2dNative": _of_depthwise_convolution,
    "MatMul": _of_product("transpose_a"),
    "BatchMatMul": _of_product("adj_x"),
    "BatchMatMulV2": _of_product("adj_x"),
    "BatchMatMulV3": _of_product("adj_x"),
    "Einsum": _of_einsum,
}
_CALLS = frozenset(
    ["PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If", "StatelessIf", "Case"]
)
