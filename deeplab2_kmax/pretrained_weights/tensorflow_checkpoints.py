"""Reads encoder weights from TensorFlow checkpoints, in the layouts that users of DeepLab2 have.

* a DeepLab2 checkpoint, of an encoder or of a whole model: `encoder/_stem/_conv/kernel`;
* a checkpoint that `save_weights` of DeepLab2's ConvNeXt encoder wrote: the same keys without `encoder/`;
* a checkpoint of TensorFlow Model Garden's vision trainer: `backbone/_encoder/` in place of `encoder/`;
* a MOAT checkpoint with variable names for keys, as TensorFlow 1 wrote it: `moat/block_00_00/expand_conv/kernel`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection

import numpy as np
import tensorflow as tf

from deeplab2_kmax.checkpoints import open_checkpoint, resolve_checkpoint
from deeplab2_kmax.checkpoints.files import VALUE_SUFFIX, CheckpointReader
from deeplab2_kmax.checkpoints.keys import Replacement
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.pretrained_weights.stored import StoredWeight, StoredWeights
from deeplab2_kmax.wording import first_line

# Keys of training state.
_NO_WEIGHTS = re.compile(
    r"\.OPTIMIZER_SLOT|^(optimizer|backbone_optimizer|global_step|save_counter|_CHECKPOINTABLE_OBJECT_GRAPH)\b"
)
_ENCODER = "encoder/"
# Where the encoder may be in an object-based checkpoint.
_ROOTS = (_ENCODER, "backbone/_encoder/", "")
_AVERAGED = "/ExponentialMovingAverage"
# (pattern, replacement), from variable names of TensorFlow 1 to checkpoint keys.
_MOAT_RULES: tuple[tuple[str, Replacement], ...] = (
    (r"^(?:moat/)?(?:stem/)?conv_([01])/", lambda m: f"encoder/_stem/layer_with_weights-{2 * int(m[1])}/"),
    (r"^(?:moat/)?(?:stem/)?norm_0/", "encoder/_stem/layer_with_weights-1/"),
    (r"^moat/block_(\d\d)_(\d\d)/(\w+)/", lambda m: f"encoder/_blocks/{int(m[1])}/{int(m[2])}/_{m[3]}/"),
    (r"/_se/(reduce|expand)_conv2d/", r"/_se/_se_\1/"),
    (r"/_attention/([qkvo])/", r"/_attention/_\1_proj/"),
)


def read_checkpoint(path: str, wanted: Collection[str]) -> StoredWeights:
    """Lists the weights of a checkpoint.

    Args:
        path: prefix, or a folder, of which the last whole checkpoint is taken.
        wanted: the encoder's checkpoint keys, "encoder/..."; the layout in which most of them are found is taken.

    Returns:
        All weights, those of an encoder under keys that begin with "encoder/".

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
    """
    prefix = resolve_checkpoint(path)
    reader = open_checkpoint(prefix)
    shapes = {name: shape for name, shape in reader.get_variable_to_shape_map().items() if not _NO_WEIGHTS.search(name)}
    by_object = {name[: -len(VALUE_SUFFIX)]: name for name in shapes if name.endswith(VALUE_SUFFIX)}
    keys = _at_encoder(by_object, wanted) if by_object else _moat_keys(shapes)
    return {
        key: StoredWeight(tuple(shapes[name]), functools.partial(_read, reader, name, prefix))
        for key, name in keys.items()
    }


def _read(reader: CheckpointReader, name: str, prefix: str) -> np.ndarray:
    try:
        value: np.ndarray = reader.get_tensor(name)
        return value
    except (ValueError, tf.errors.OpError) as error:
        raise CheckpointError(f"{prefix}: cannot read {name}: {first_line(error)}") from error


def _at_encoder(names: dict[str, str], wanted: Collection[str]) -> dict[str, str]:
    """Moves the encoder's keys to "encoder/", from the root under which most of the `wanted` keys are found.

    Args:
        names: {key: name in the file}.
        wanted: keys that begin with "encoder/".
    """

    def moved(root: str) -> dict[str, str]:
        if root == _ENCODER:
            return names
        return {_ENCODER + key[len(root) :] if key.startswith(root) else key: name for key, name in names.items()}

    return max((moved(root) for root in _ROOTS), key=lambda keys: len(keys.keys() & set(wanted)))


def _moat_keys(names: Collection[str]) -> dict[str, str]:
    """{key: name in the file} of a MOAT; averaged weights are used if the file has no others."""
    # Averages come last; a key that is there already keeps its weight, and the average is listed under its own name.
    keys: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name.endswith(_AVERAGED)):
        key = moat_key(name[: -len(_AVERAGED)] if name.endswith(_AVERAGED) else name)
        keys[name if key in keys else key] = name
    return keys


def moat_key(variable_name: str) -> str:
    """The checkpoint key of a MOAT variable.

    Args:
        variable_name: as in DeepLab2, without ":0".
    """
    for pattern, replacement in _MOAT_RULES:
        variable_name = re.sub(pattern, replacement, variable_name)
    return variable_name
