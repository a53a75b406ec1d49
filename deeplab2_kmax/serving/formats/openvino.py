"""OpenVINO: Intel's runtime, for processors, graphics and neural units of Intel, and for ARM."""

from __future__ import annotations

import os
import re
import tempfile
from typing import Any

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.serving.formats.runtime import Contents, Run, Runtime, Unsupported
from deeplab2_kmax.wording import first_line

_GRAPH, _WEIGHTS = "model.xml", "model.bin"
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
    openvino = _openvino()
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
        path = os.path.join(folder, _GRAPH)
        openvino.save_model(model, path, compress_to_fp16=False)
        return {name: files.read_bytes(os.path.join(folder, name)) for name in (_GRAPH, _WEIGHTS)}


def _load(contents: Contents) -> Run:
    openvino = _openvino()
    core = openvino.Core()
    model = core.read_model(contents[_GRAPH], openvino.Tensor(np.frombuffer(contents[_WEIGHTS], np.uint8)))
    # Without the hint, processors that have bfloat16 compute in it.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.any_name for output in compiled.outputs]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = compiled(images)
        # Copies, as a later call may use the same memory.
        return {name: np.array(results[index]) for index, name in enumerate(names)}

    return run


RUNTIME = Runtime("OpenVINO", (_GRAPH, _WEIGHTS), None, _version, _convert, _load)
