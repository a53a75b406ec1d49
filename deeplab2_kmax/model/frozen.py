"""Freezing: a traced function that only predicts gets the graph that TensorFlow runs fastest.

Weights become constants of the graph where that pays, and activations that TensorFlow cannot fuse are kept apart.
TensorFlow prepares constants once, where it packs variables anew at every call, and folds what depends on them alone.
`convert_variables_to_constants_v2` of TensorFlow does the same for all graphs, and copies each of their thousands of
operations twice in Python: for ResNet-50 it takes longer than building and tracing the network.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from deeplab2_kmax.model.layers.folding import fold_batch_norms

# A concrete function of pictures [B, H, W, 3].
Inference = Callable[[tf.Tensor], dict[str, tf.Tensor]]
_SUMS = ("Add", "AddV2", "AddN")
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


def for_inference(function: Any, model: Any) -> tuple[Inference, list[tf.Variable]]:
    """A traced function of a model in the form that TensorFlow runs fastest.

    Args:
        function: concrete function of one tensor, which returns a dict of tensors.
        model: whose variables it reads; they must not change any more.

    Returns:
        The concrete function of the same tensor, with the same result; and the variables that it still reads, none
        where they became constants.
    """
    variables = variables_of(function, model)
    if is_worthwhile(variables):
        return _rebuilt(function, variables, _part_shared_activations), []
    return _rebuilt(function, [], _part_shared_activations), variables


def frozen(function: Any, variables: Sequence[tf.Variable]) -> Inference:
    """A function with the present values of its variables in its graph, and else the operations that it has.

    Args:
        function: concrete function of one tensor, which returns a dict of tensors.
        variables: those that it reads, see `is_freezable`. Later changes of them no longer count.

    Returns:
        The concrete function of the same tensor, with the same result.
    """
    return _rebuilt(function, variables)


def _rebuilt(
    function: Any, variables: Sequence[tf.Variable], change: Callable[[Any], None] = lambda graph: None
) -> Inference:
    """A function with `variables` as constants, and with a graph that `change` has changed in place."""
    argument, *placeholders = function.inputs
    captured = {placeholder.op.name: tensor for placeholder, tensor in zip(placeholders, function.captured_inputs)}
    by_handle = {id(variable.handle): variable for variable in variables}
    constants = {name: by_handle[id(handle)] for name, handle in captured.items() if id(handle) in by_handle}
    graph = function.graph.as_graph_def()
    for node in graph.node:
        if node.name in constants:
            _make_constant(node, constants[node.name])
        elif node.op == "ReadVariableOp" and node.input[0] in constants:
            _make_identity(node)
    change(graph)
    names = {name: tensor.name for name, tensor in zip(sorted(function.structured_outputs), function.outputs)}

    def run(images: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = {argument.name: images}
        for name, tensor in captured.items():
            if name not in constants:
                inputs[f"{name}:0"] = tf.compat.v1.get_default_graph().capture(tensor)
        results = tf.graph_util.import_graph_def(graph, inputs, list(names.values()), name="")
        return dict(zip(names, results))

    spec = tf.TensorSpec(argument.shape, argument.dtype, name="images")
    return tf.function(run, autograph=False).get_concrete_function(spec)


def _part_shared_activations(graph: Any) -> None:
    """Keeps each ReLU of a sum that others read, too, from being fused with the sum, by writing it as a maximum.

    TensorFlow's remapper, which fuses convolutions with what follows them, fuses such a ReLU as if nobody else read the
    sum, finds that the sum is missing then ("remapper failed"), and gives up all that it has done to the graph.
    """
    nodes = {node.name: node for node in graph.node}
    sources = [source.split(":")[0].lstrip("^") for node in graph.node for source in node.input]
    readers = collections.Counter(sources)
    for node in list(graph.node):
        if node.op != "Relu":
            continue
        source = node.input[0].split(":")[0]
        if nodes[source].op in _SUMS and readers[source] > 1:
            node.op = "Maximum"
            node.input.append(_zero(graph, f"{node.name}_zero", node.attr["T"].type))


def _zero(graph: Any, name: str, data_type: int) -> str:
    """Adds a constant to a graph, a scalar 0, and returns its name."""
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = data_type
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0.0, tf.dtypes.as_dtype(data_type), []))
    return name


class FrozenNetwork:
    """A network with the weights that it has when it is first called: batch norms folded, and constants if it is small.

    Args:
        model: from `build_model`; from the first call on it must not be trained or restored any more.
    """

    def __init__(self, model: tf.Module) -> None:
        self._model = model
        self._run: Inference | None = None

    def __call__(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """The outputs of the network in inference; all calls have images [B, h, w, 3] of the same h and w."""
        if training:
            raise ValueError("FrozenNetwork: expected training=False, as its weights are constants, got True")
        if self._run is None:
            # Outside of the graph that the caller may be tracing, of which the folded weights would be tensors.
            with tf.init_scope():
                self._run = self._frozen([None, *images.shape[1:]])
        return self._run(images)

    def _frozen(self, shape: list[int | None]) -> Inference:
        fold_batch_norms(self._model)
        function = tf.function(lambda images: dict(self._model(images, training=False)), autograph=False)
        concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32, name="images"))
        return for_inference(concrete, self._model)[0]


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
