"""Compares the weights in a file with the pixel encoder of a model, and assigns them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import tensorflow as tf
from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints import RestoreReport, resolve_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.pretrained_weights.keras_applications import read_keras_application
from deeplab2_kmax.pretrained_weights.tensorflow_checkpoints import read_checkpoint
from deeplab2_kmax.wording import counted

_KERAS_FILES = (".h5", ".hdf5")
# A key within a block of a stage, in the three naming styles of the encoders; the groups are stage and block.
_BLOCK = re.compile(r"^encoder/(?:stages/|_blocks/|_stage)(\d)/(?:layer_with_weights-|_block)?(\d+)/")
# Parts of MaX-DeepLab's skeleton that no classifier has: decoder layers, extra layers and cluster centers.
_NEW_IN_ENCODER = re.compile(r"_transformer/|_extra|memory_feature")
# May keep their initial values: DeepLab2 does not load moving statistics of a MOAT either.
_DISPENSABLE = ("moving_mean", "moving_variance")
# May be left over: the position biases of an encoder that is configured to have none.
_REMOVABLE = ("relative_position_embedding",)


def require_pretrained_weights(path: str) -> None:
    """Checks that there is a file to load, before anything is built.

    Args:
        path: as in `load_pretrained_weights`.

    Raises:
        CheckpointError: there is no such file or checkpoint.
    """
    if not path.endswith(_KERAS_FILES):
        try:
            resolve_checkpoint(path)
        except CheckpointError as error:
            raise CheckpointError(f"pretrained_weights: {error}") from error
    elif not files.exists(path):
        raise CheckpointError(f"pretrained_weights: no such file: {path!r} ({files.absolute(path)})")


def load_pretrained_weights(
    model: tf.keras.Model, path: str, backbone: str, batch_norm_epsilon: float = 1e-3
) -> RestoreReport:
    """Assigns the variables of the pixel encoder, or of MaX-DeepLab's backbone, from a file.

    Args:
        model: from `build_model`.
        path: local or remote; a TensorFlow checkpoint (prefix or folder) in one of the layouts of
            `tensorflow_checkpoints`, or an HDF5 file of a Keras application (`keras_applications`).
        backbone: the encoder's name in the config.
        batch_norm_epsilon: of the encoder's batch norms.

    Returns:
        Which variables were loaded and which were not. The weights of a classifier, for example, are unused.

    Raises:
        CheckpointError: there is no such file, or it holds the weights of another encoder. No variable has been
            assigned then.
    """
    require_pretrained_weights(path)
    variables = {
        key: value
        for key, value in checkpoint_variables(model).items()
        if key.startswith("encoder/") and not _NEW_IN_ENCODER.search(key)
    }
    if path.endswith(_KERAS_FILES):
        stored = read_keras_application(path, ENCODERS[backbone].kind, batch_norm_epsilon)
    else:
        stored = read_checkpoint(path, variables)
    report = RestoreReport.of_shapes(
        path,
        {key: tuple(value.shape) for key, value in variables.items()},
        {key: value.shape for key, value in stored.items()},
    )
    if _is_another_encoder(report, variables):
        raise CheckpointError(
            f"{path} does not hold weights of {backbone}\n"
            f"    expected {_described((key, value.shape) for key, value in variables.items())}\n"
            f"    got {_described((key, value.shape) for key, value in stored.items())}\n"
            f"    {report.refusal()}"
        )
    # All are read before the first is assigned, so that a file that breaks off leaves the model as it was.
    values = {key: stored[key].read() for key in report.loaded}
    for key, value in values.items():
        variables[key].assign(value)
    logging.info("%s", report)
    return report


def _is_another_encoder(report: RestoreReport, variables: Iterable[str]) -> bool:
    """Whether the weights differ from the encoder in more than is allowed.

    Allowed are unused weights of parts that the encoder does not have, such as a classifier, and the exceptions
    `_DISPENSABLE` and `_REMOVABLE`.
    """
    if not report.loaded or report.misshaped or any(not key.endswith(_DISPENSABLE) for key in report.missing):
        return True
    parts = {_part(key) for key in variables}
    return any(_part(key) in parts and not key.endswith(_REMOVABLE) for key in report.unused)


def _part(key: str) -> str:
    """The part of the encoder that a key belongs to, e.g. "encoder/stages", or "encoder/_stage" for all its stages."""
    return re.sub(r"\d+$", "", "/".join(key.split("/")[:2]))


def _described(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """A short description of the weights of a file or an encoder: blocks of each stage, number of weights."""
    blocks: dict[str, set[str]] = {}
    weights = 0
    for key, shape in shapes:
        if key.startswith("encoder/"):
            weights += math.prod(shape)
            if match := _BLOCK.match(key):
                blocks.setdefault(match[1], set()).add(match[2])
    if not weights:
        return "no encoder"
    counts = ", ".join(str(len(blocks[stage])) for stage in sorted(blocks))
    return f"stages of {counts or 'no'} blocks, {counted(weights, 'weight')}"
