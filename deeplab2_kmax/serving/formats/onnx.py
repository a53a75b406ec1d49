"""ONNX, an open format that many runtimes read. Here tf2onnx writes it and ONNX Runtime runs it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from deeplab2_kmax.errors import UserError
from deeplab2_kmax.serving.formats.runtime import Contents, Run, Runtime, Unsupported

_FILE = "model.onnx"
# The newest version of the operators that tf2onnx and runtimes of several years all know.
_OPSET = 17
_MISSING = re.compile(r"Tensorflow op \[.*: (\w+)\] is not supported")
# Has TensorFlow replace a loop by jumps, of which tf2onnx makes loops again, but not of those that collect tensors.
_LOOPS_AS_JUMPS = "_lower_using_switch_merge"
# Of what a size is divided by the other and rounded, a runtime makes the size again, rounded down. So a little more.
_SPARE = np.float32(1 + 1e-6)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"onnx: needs {name} ({error}): pip install 'deeplab2_kmax[onnx]'") from error


def _version() -> str:
    return f"onnxruntime {_package('onnxruntime').__version__}"


def _require_converter() -> None:
    _package("onnx")
    _package("tf2onnx")


def _convert(function: Any) -> Contents:
    """The function in ONNX, with weights in float32 and batches of any size."""
    import tensorflow as tf
    import tf2onnx
    from tf2onnx import tfonnx
    from tf2onnx.optimizer import optimize_graph
    from tf2onnx.optimizer.const_fold_optimizer import ConstFoldOptimizer
    from tf2onnx.optimizer.identity_optimizer import IdentityOptimizer

    graph = function.graph.as_graph_def()
    for nodes in (graph.node, *(each.node_def for each in graph.library.function)):
        for node in nodes:
            node.attr.pop(_LOOPS_AS_JUMPS, None)
    (argument,) = function.inputs
    # Outputs come in the order of the function's.
    names = {tensor.name: name for name, tensor in zip(sorted(function.structured_outputs), function.outputs)}
    with _errors_of_converter() as errors:
        # As its own `from_graph_def` does, but for the passes at the end.
        with tf.Graph().as_default():
            tf.import_graph_def(graph, name="")
            graph = tfonnx.tf_optimize([argument.name], list(names), graph)
        _without_erfc(graph)
        with tf.Graph().as_default() as whole:
            tf.import_graph_def(graph, name="")
            converted = tfonnx.process_tf_graph(
                whole,
                opset=_OPSET,
                input_names=[argument.name],
                output_names=list(names),
                tensors_to_rename={argument.name: argument.op.name, **names},
            )
        if missing := sorted({match[1] for error in errors if (match := _MISSING.search(error))}):
            raise Unsupported(f"operations {', '.join(missing)}, says tf2onnx {tf2onnx.__version__}")
        # Those without which the result is not valid. tf2onnx has ten more, which go over the whole graph again and
        # again, for minutes; ONNX Runtime does their work in seconds when it loads the file.
        passes = {"fold_constants": ConstFoldOptimizer, "remove_identity": IdentityOptimizer}
        # Not catching errors, for which it would copy the whole graph, weights and all, before each pass.
        model = optimize_graph(converted, catch_errors=False, optimizers=passes).make_model("deeplab2_kmax")
    _widen_scales(model)
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    return {_FILE: model.SerializeToString()}


def _without_erfc(graph: Any) -> None:
    """Writes erfc(x), which newer TensorFlow computes GELU by and ONNX does not have, as 1 - erf(x)."""
    import tensorflow as tf

    for node in [each for each in graph.node if each.op == "Erfc"]:
        erf, one = graph.node.add(), graph.node.add()
        erf.CopyFrom(node)
        erf.op, erf.name = "Erf", f"{node.name}/erf"
        one.op, one.name = "Const", f"{node.name}/one"
        one.attr["dtype"].type = node.attr["T"].type
        one.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1, tf.as_dtype(node.attr["T"].type)))
        node.op = "Sub"
        node.input[:] = [one.name, erf.name]


@contextlib.contextmanager
def _errors_of_converter() -> Iterator[list[str]]:
    """Collects what tf2onnx logs as errors, of which it raises few, and keeps it and its notes off the terminal."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                messages.append(record.getMessage())

    logger = logging.getLogger("tf2onnx")
    kept = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [Collector()], False
    try:
        yield messages
    finally:
        logger.handlers, logger.propagate = kept


def _widen_scales(model: Any) -> None:
    """Has resized maps get the size that they had, where tf2onnx writes the ratio of two sizes instead of a size."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = {node.input[2] for node in model.graph.node if node.op_type == "Resize" and len(node.input) == 3}
    for name in scales:
        values = numpy_helper.to_array(constants[name]).copy()
        values[2:] *= _SPARE  # Batch and channels come first.
        constants[name].CopyFrom(numpy_helper.from_array(values, name))


def _load(contents: Contents, precision: str) -> Run:
    del precision  # There is one.
    onnxruntime = _package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors; it warns of each constant that it folds.
    session = onnxruntime.InferenceSession(contents[_FILE], options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    (argument,) = session.get_inputs()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {argument.name: images})))

    return run


RUNTIME = Runtime("ONNX Runtime", (_FILE,), None, _version, _convert, _load, require_converter=_require_converter)
