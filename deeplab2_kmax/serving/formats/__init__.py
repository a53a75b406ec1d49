"""What an export can be written as: a SavedModel, or a file for another runtime than TensorFlow.

Each of the other formats has one module here, which says how a TensorFlow function becomes the contents of its files
and how these are run; `runtime` has the type. What the function is, and the comparison of both, is in
`serving.portable`. The packages of these runtimes are optional and imported late.
"""

from deeplab2_kmax.serving.formats import litert, onnx, openvino
from deeplab2_kmax.serving.formats.runtime import Contents, Run, Runtime, Unsupported

SAVED_MODEL = "saved_model"
RUNTIMES = {"openvino": openvino.RUNTIME, "onnx": onnx.RUNTIME, "litert": litert.RUNTIME}
NAMES = (SAVED_MODEL, *RUNTIMES)

__all__ = ["NAMES", "RUNTIMES", "SAVED_MODEL", "Contents", "Run", "Runtime", "Unsupported"]
