"""LiteRT, once TensorFlow Lite: Google's runtime for phones and small computers."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from deeplab2_kmax.errors import UserError
from deeplab2_kmax.serving.formats.runtime import Contents, Run, Runtime, Unsupported

_FILE = "model.tflite"
_MISSING = re.compile(r"'tf\.(\w+)' op is neither")


def _tensorflow() -> Any:
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(f"litert: needs TensorFlow ({error}), which it is part of: pip install tensorflow") from error
    return tf


def _version() -> str:
    return f"LiteRT of tensorflow {_tensorflow().__version__}"


def _convert(function: Any) -> Contents:
    """The function in LiteRT's format, with weights in float32 and the signature `serving_default`."""
    tf = _tensorflow()
    # Only what belongs to a module keeps the names of its inputs and outputs.
    module = tf.Module()
    module.function = function
    try:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
        with _silence():
            return {_FILE: converter.convert()}
    except Exception as error:  # Of a class that is not public.
        missing = sorted(set(_MISSING.findall(str(error))))
        if not missing:
            raise
        raise Unsupported(f"operations {', '.join(missing)}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drops what the converter, a C++ library, prints: page-long statistics, and errors that its exception has too."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _load(contents: Contents, precision: str) -> Run:
    del precision  # There is one.
    interpreter = _tensorflow().lite.Interpreter(model_content=contents[_FILE])
    run = interpreter.get_signature_runner()

    def outputs(images: np.ndarray) -> dict[str, np.ndarray]:
        return run(images=images)

    return outputs


# One picture at a time: with all shapes known, delegates such as those for graphics units take more of the model.
RUNTIME = Runtime("LiteRT", (_FILE,), 1, _version, _convert, _load, apart=True)
