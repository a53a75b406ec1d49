"""Freezing: the weights of a traced function become constants of its graph.

TensorFlow then prepares them once, where it packs variables anew at every call, and folds what depends on them alone.
`convert_variables_to_constants_v2` of TensorFlow does the same for all graphs, and copies each of their thousands of
operations twice in Python: for ResNet-50 it takes longer than building and tracing the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from deeplab2_kmax.model.layers.folding import fold_batch_norms

# A graph is stored as one protobuf message of less than 2 GB; the rest is for the operations.
LARGEST = 1_900_000_000
# While TensorFlow prepares a graph for its first run, it holds some fifty copies of the constants: with ResNet-50's it
# takes 10 GB in place of 1.6, and twice the time until the first result. Later runs are a tenth faster, no more.
WORTHWHILE = 20_000_000


def is_freezable(variables: Sequence[tf.Variable]) -> bool:
    """Whether the values of variables fit a graph."""
    return _bytes(variables) <= LARGEST


def is_worthwhile(variables: Sequence[tf.Variable]) -> bool:
    """Whether TensorFlow is to run a graph with the values of variables as constants."""
    return _bytes(variables) <= WORTHWHILE


def _bytes(variables: Sequence[tf.Variable]) -> int:
    return sum(variable.dtype.size * variable.shape.num_elements() for variable in variables)


def variables_of(function: Any, model: tf.Module) -> list[tf.Variable]:
    """The variables of a model that a concrete function reads."""
    used = {id(handle) for handle in function.captured_inputs}
    return [variable for variable in model.variables if id(variable.handle) in used]


def frozen(function: Any, variables: Sequence[tf.Variable]) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A function with the present values of its variables in its graph.

    Args:
        function: concrete function of one tensor, which returns a dict of tensors.
        variables: those that it reads, see `is_freezable`. Later changes of them no longer count.

    Returns:
        The concrete function of the same tensor, with the same result.
    """
    argument, *captured = function.inputs
    by_handle = {id(variable.handle): variable for variable in variables}
    constants = {
        placeholder.op.name: by_handle[id(handle)] for handle, placeholder in zip(function.captured_inputs, captured)
    }
    graph = function.graph.as_graph_def()
    for node in graph.node:
        if node.name in constants:
            _make_constant(node, constants[node.name])
        elif node.op == "ReadVariableOp" and node.input[0] in constants:
            _make_identity(node)
    names = {name: tensor.name for name, tensor in zip(sorted(function.structured_outputs), function.outputs)}

    def run(images: tf.Tensor) -> dict[str, tf.Tensor]:
        results = tf.graph_util.import_graph_def(graph, {argument.name: images}, list(names.values()), name="")
        return dict(zip(names, results))

    spec = tf.TensorSpec(argument.shape, argument.dtype, name="images")
    return tf.function(run, autograph=False).get_concrete_function(spec)


class FrozenNetwork:
    """A network with the weights that it has when it is first called: batch norms folded, and constants if it is small.

    Args:
        model: from `build_model`; from the first call on it must not be trained or restored any more.
    """

    def __init__(self, model: tf.Module) -> None:
        self._model = model
        self._run: Callable[[tf.Tensor], dict[str, tf.Tensor]] | None = None

    def __call__(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """The outputs of the network in inference; all calls have images [B, h, w, 3] of the same h and w."""
        if training:
            raise ValueError("FrozenNetwork: expected training=False, as its weights are constants, got True")
        if self._run is None:
            # Outside of the graph that the caller may be tracing, of which the folded weights would be tensors.
            with tf.init_scope():
                self._run = self._frozen([None, *images.shape[1:]])
        return self._run(images)

    def _frozen(self, shape: list[int | None]) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
        fold_batch_norms(self._model)
        function = tf.function(lambda images: dict(self._model(images, training=False)), autograph=False)
        concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32, name="images"))
        variables = variables_of(concrete, self._model)
        return frozen(concrete, variables) if is_worthwhile(variables) else concrete


def _make_constant(node: Any, variable: tf.Variable) -> None:
    """Turns the placeholder of a variable's handle into the variable's value."""
    node.op = "Const"
    node.attr.clear()
    node.attr["dtype"].type = variable.dtype.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(variable.numpy()))


def _make_identity(node: Any) -> None:
    """Turns the reading of a variable's handle into passing on what is its value now."""
    dtype = node.attr["dtype"].type
    node.op = "Identity"
    node.attr.clear()
    node.attr["T"].type = dtype
