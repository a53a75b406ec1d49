"""What differs between the two lines of dependencies; everywhere else the package is one code base for both.

| line | Python | TensorFlow | Keras 2 is | RectifiedAdam, Lookahead | numpy | protobuf |
|---|---|---|---|---|---|---|
| first | 3.9 to 3.11 | 2.15 | Keras itself | tensorflow-addons | 1 | 4 |
| second | 3.12, 3.13 | 2.20 | the package tf-keras | our own, beside the other optimizers | 2 | 5 and later |

The metadata (pyproject.toml) chooses the line by the version of Python. What decides here is what is there, never a
version. This module is imported with the package, so it imports nothing heavy by itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from typing import Any

from deeplab2_kmax.errors import UserError

# From TensorFlow 2.16 on, `tf.keras` is Keras 3 unless this variable tells TensorFlow to take Keras 2, from tf-keras.
_VARIABLE = "TF_USE_LEGACY_KERAS"
# The values that TensorFlow takes for yes.
_YES = ("1", "true", "True")

# The kind of a message, as `DESCRIPTOR` has it, and a field, as in `DESCRIPTOR.fields`. Their types are others on each
# line: on the second, protobuf's own classes come in two kinds.
MessageKind = Any
Field = Any


def use_keras_2() -> None:
    """Has TensorFlow take Keras 2 for `tf.keras`, where Keras 3 is installed too.

    TensorFlow reads the variable when `tf.keras` is used for the first time, so it may have been imported before. What
    has been imported is looked at each time, because `import tensorflow.keras` can replace `tf.keras` later on.

    Raises:
        UserError: `tf.keras` is Keras 3 already, or the environment asks for Keras 3.
    """
    if not _keras_3_is_installed():
        return
    value = os.environ.get(_VARIABLE) or "1"
    if value not in _YES:
        raise UserError(
            "deeplab2_kmax needs Keras 2 (the package tf-keras), but with the environment variable"
            f" {_VARIABLE}={value} TensorFlow takes Keras 3; unset {_VARIABLE} or set it to 1"
        )
    os.environ[_VARIABLE] = value
    tensorflow = sys.modules.get("tensorflow")
    # While TensorFlow is being imported, in another thread for instance, it has no `keras` yet.
    if tensorflow is None or "keras" not in vars(tensorflow):
        return
    layer = tensorflow.keras.layers.Layer
    if not layer.__module__.startswith("tf_keras."):
        raise UserError(
            "deeplab2_kmax needs Keras 2 (the package tf-keras) as tf.keras, but in this process tf.keras is Keras 3"
            f" already (tf.keras.layers.Layer is {layer.__module__}.Layer): it was used, or tensorflow.keras imported,"
            f" before deeplab2_kmax. Import deeplab2_kmax first, or set the environment variable {_VARIABLE}=1 before"
            " Python starts"
        )


def _keras_3_is_installed() -> bool:
    # Not by its version: both importing Keras and looking its version up take longer than a --help should.
    spec = importlib.util.find_spec("keras")
    # This folder is what TensorFlow takes for `tf.keras` if it takes Keras 3.
    return spec is not None and any(
        os.path.isdir(os.path.join(folder, "_tf_keras")) for folder in spec.submodule_search_locations or ()
    )


def tensorflow_addons_optimizers() -> Any | None:
    """The module `tensorflow_addons.optimizers`, or None on the second line, for which there is none."""
    try:
        with warnings.catch_warnings():
            # On every import it says that its development has ended.
            warnings.simplefilter("ignore")
            return importlib.import_module("tensorflow_addons.optimizers")
    except ImportError:
        return None


def is_repeated(field: Field) -> bool:
    """Whether a field of a message holds a list."""
    # The property came with protobuf 6.31; `label`, which said it before, warns there and has gone in protobuf 7.
    known = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if known is None else known)
