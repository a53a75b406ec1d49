"""Encoder weights from TensorFlow checkpoints, in the layouts in which DeepLab2's users have them.

* a DeepLab2 checkpoint, of an encoder or of a whole model: `encoder/_stem/_conv/kernel`;
* one written by `save_weights` of DeepLab2's encoder (its ConvNeXt): the same without `encoder/`;
* one of TensorFlow Model Garden's vision trainer: `backbone/_encoder/` in its place;
* one of MOAT by variable names, as TensorFlow 1 wrote it: `moat/block_00_00/expand_conv/kernel`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection

import tensorflow as tf

from deeplab2_kmax.checkpoints import open_checkpoint, resolve_checkpoint
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.pretrained_weights.stored import StoredWeight, StoredWeights

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_NO_WEIGHTS = re.compile(
    r"\.OPTIMIZER_SLOT|^(optimizer|backbone_optimizer|global_step|save_counter|_CHECKPOINTABLE_OBJECT_GRAPH)\b"
)
_ENCODER = "encoder/"
_ROOTS = (_ENCODER, "backbone/_encoder/", "")
_AVERAGED = "/ExponentialMovingAverage"
_MOAT_RULES = (
    (r"^(?:moat/)?(?:stem/)?conv_([01])/", lambda m: f"encoder/_stem/layer_with_weights-{2 * int(m[1])}/"),
    (r"^(?:moat/)?(?:stem/)?norm_0/", "encoder/_stem/layer_with_weights-1/"),
    (r"^moat/block_(\d\d)_(\d\d)/(\w+)/", lambda m: f"encoder/_blocks/{int(m[1])}/{int(m[2])}/_{m[3]}/"),
    (r"/_se/(reduce|expand)_conv2d/", r"/_se/_se_\1/"),
    (r"/_attention/([qkvo])/", r"/_attention/_\1_proj/"),
)


def read_checkpoint(path: str, wanted: Collection[str]) -> StoredWeights:
    """What the checkpoint at `path`, a prefix or a folder, holds.

    Args:
        path: of the checkpoint.
        wanted: the encoder's checkpoint keys, "encoder/..."; they tell the layouts apart.

    Returns:
        All weights, those of an encoder under keys that begin with "encoder/".

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
    """
    prefix = resolve_checkpoint(path)
    try:
        reader = open_checkpoint(prefix)
    except (ValueError, tf.errors.OpError) as error:
        raise CheckpointError(f"{prefix}: not a readable checkpoint: {error}") from error
    shapes = {name: shape for name, shape in reader.get_variable_to_shape_map().items() if not _NO_WEIGHTS.search(name)}
    by_object = {name[: -len(_VALUE)]: name for name in shapes if name.endswith(_VALUE)}
    keys = _at_encoder(by_object, wanted) if by_object else _moat_keys(shapes)
    return {
        key: StoredWeight(tuple(shapes[name]), functools.partial(_read, reader, name, prefix))
        for key, name in keys.items()
    }


def _read(reader, name: str, prefix: str):
    try:
        return reader.get_tensor(name)
    except (ValueError, tf.errors.OpError) as error:
        raise CheckpointError(f"{prefix}: cannot read {name}: {str(error).splitlines()[0]}") from error


def _at_encoder(names: dict[str, str], wanted: Collection[str]) -> dict[str, str]:
    """{key: name in the file} with the keys under that root which finds most of the `wanted` ones moved to encoder/."""

    def moved(root: str) -> dict[str, str]:
        if root == _ENCODER:
            return names
        return {_ENCODER + key[len(root) :] if key.startswith(root) else key: name for key, name in names.items()}

    return max((moved(root) for root in _ROOTS), key=lambda keys: len(keys.keys() & set(wanted)))


def _moat_keys(names: Collection[str]) -> dict[str, str]:
    """{key: name in the file} of a MOAT; averaged weights stand in where the file has no others."""
    keys = {}
    for name in sorted(names, key=lambda name: name.endswith(_AVERAGED)):
        key = moat_key(name[: -len(_AVERAGED)] if name.endswith(_AVERAGED) else name)
        keys[name if key in keys else key] = name
    return keys


def moat_key(variable_name: str) -> str:
    """The checkpoint key of the MOAT variable that DeepLab2 calls `variable_name` (without ":0")."""
    for pattern, replacement in _MOAT_RULES:
        variable_name = re.sub(pattern, replacement, variable_name)
    return variable_name
