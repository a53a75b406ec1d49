"""OpenVINO: Intel's runtime, for processors, graphics and neural units of Intel, and for ARM."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.serving.formats.runtime import LOGITS, Contents, Run, Runtime, Unsupported
from deeplab2_kmax.wording import first_line

_GRAPH, _WEIGHTS = "model.xml", "model.bin"
# What OpenVINO calls precisions.
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Batch sizes that stay prepared, each with weights of its own.
_PREPARED = 4
_MISSING = re.compile(r"No conversion rule found for operations: (.*)")


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UserError(f"openvino: needs OpenVINO ({error}): pip install 'deeplab2_kmax[openvino]'") from error
    return openvino


def _version() -> str:
    return f"openvino {_openvino().__version__}"


def _convert(function: Any) -> Contents:
    """The function in OpenVINO's format, with weights in float32."""
    from openvino.frontend import FrontEndManager

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "graph.pb")
        files.write_bytes(path, function.graph.as_graph_def().SerializeToString())
        # Not `openvino.convert_model`, which reports each use to a server, and waits for a minute where there is none.
        frontend = FrontEndManager().load_by_framework("tf")
        try:
            model = frontend.convert(frontend.load(path))
        except Exception as error:  # Of a class that is not public.
            missing = _MISSING.search(str(error))
            raise Unsupported(f"operations {missing[1]}" if missing else first_line(error)) from error
        (argument,) = function.inputs
        model.inputs[0].get_tensor().set_names({argument.op.name})
        # Outputs come in the order of the function's.
        for name, output in zip(sorted(function.structured_outputs), model.outputs):
            output.get_tensor().set_names({name})
        return _written(model)


def _read(contents: Contents) -> Any:
    """OpenVINO's model of these files."""
    openvino = _openvino()
    return openvino.Core().read_model(contents[_GRAPH], openvino.Tensor(np.frombuffer(contents[_WEIGHTS], np.uint8)))


def _written(model: Any) -> Contents:
    """The files of OpenVINO's model, with what it has in float32 as it is."""
    with tempfile.TemporaryDirectory() as folder:
        _openvino().save_model(model, os.path.join(folder, _GRAPH), compress_to_fp16=False)
        return {name: files.read_bytes(os.path.join(folder, name)) for name in (_GRAPH, _WEIGHTS)}


def _load(contents: Contents, precision: str) -> Run:
    openvino = _openvino()
    core = openvino.Core()
    if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UserError("precision: expected a processor with bfloat16, got one without; use float32")
    network, postprocessing = _parts(_read(contents))
    # Without the hint, processors that have bfloat16 compute in it, and post-processing would as well.
    network_hint = {"INFERENCE_PRECISION_HINT": _HINTS[precision]}
    postprocessing_hint = {"INFERENCE_PRECISION_HINT": "f32"}

    # With all shapes known, OpenVINO computes more operations in one pass.
    @functools.lru_cache(_PREPARED)
    def prepared(batch: int) -> tuple[Any, Any]:
        for model in (network, postprocessing):
            model.reshape({each: [batch, *list(each.partial_shape)[1:]] for each in model.inputs})
        return (
            core.compile_model(network, "CPU", network_hint),
            core.compile_model(postprocessing, "CPU", postprocessing_hint),
        )

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        compiled_network, compiled_postprocessing = prepared(len(images))
        logits = compiled_network(images)
        maps = compiled_postprocessing([logits[name] for name in LOGITS])
        # Copies, as a later call may use the same memory.
        return {output.any_name: np.array(values) for each in (logits, maps) for output, values in each.items()}

    return run


def _parts(model: Any) -> tuple[Any, Any]:
    """Cuts a model into the network, from `images` to `LOGITS`, and post-processing, which takes these.

    Args:
        model: of OpenVINO; it is used up.
    """
    openvino = _openvino()
    results = [model.output(name).get_node() for name in LOGITS]
    maps = [result for result in model.get_results() if result not in results]
    inputs = []
    for result in results:
        logits = result.input_value(0)
        taken = openvino.op.Parameter(logits.get_element_type(), logits.get_partial_shape())
        for consumer in logits.get_target_inputs():
            if consumer.get_node() != result:
                consumer.replace_source_output(taken.output(0))
        inputs.append(taken)
    network = openvino.Model(results, model.get_parameters(), "network")
    return network, openvino.Model(maps, inputs, "postprocessing")


def _joined(network: Any, postprocessing: Any) -> Any:
    """The model of the two `_parts`, which are used up."""
    results = [network.output(name).get_node() for name in LOGITS]
    for result, taken in zip(results, postprocessing.inputs):
        for consumer in taken.get_target_inputs():
            consumer.replace_source_output(result.input_value(0))
    return _openvino().Model([*results, *postprocessing.get_results()], network.get_parameters(), "model")


def _quantize(contents: Contents, pictures: Sequence[str], read: Callable[[str], np.ndarray]) -> Contents:
    """The model with its network in INT8, and post-processing as it was; see `Runtime.quantize`."""
    network, postprocessing = _parts(_read(contents))
    nncf = _nncf()
    # It draws progress bars, and warns of what no user can change.
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        # Activations such as those of GELU have asymmetric ranges. Not NNCF's ModelType.TRANSFORMER, with which (3.4)
        # all pictures of a batch but the first get wrong results.
        network = nncf.quantize(
            network,
            nncf.Dataset(pictures, read),
            subset_size=len(pictures),
            preset=nncf.QuantizationPreset.MIXED,
        )
    return _written(_joined(network, postprocessing))


def _nncf() -> Any:
    # Otherwise it reports each use to a server.
    os.environ.setdefault("NNCF_CI", "1")
    try:
        import nncf
    except ImportError as error:
        raise UserError(f"--quantize: needs NNCF ({error}): pip install 'deeplab2_kmax[openvino]'") from error
    return nncf


RUNTIME = Runtime(
    "OpenVINO",
    (_GRAPH, _WEIGHTS),
    None,
    _version,
    _convert,
    _load,
    precisions=tuple(_HINTS),
    quantize=_quantize,
    require_quantizer=_nncf,
)
