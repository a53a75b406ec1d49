"""Pretrained weights of the pixel encoder, from a file that the user has; nothing is downloaded.

    report = load_pretrained_weights(model, "convnext_tiny_imagenet_22k_1k_384/ckpt", "kmax_convnext_tiny")

Building a model never needs them. A run that trains from scratch loads them where the config's
`model_options.backbone.pretrained_weights` names a file; resuming, evaluation and export do not look for it.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable

import tensorflow as tf
from absl import logging

from deeplab2_kmax.checkpoints import RestoreReport, resolve_checkpoint
from deeplab2_kmax.checkpoints.keys import checkpoint_variables
from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.pretrained_weights.keras_applications import read_keras_application
from deeplab2_kmax.pretrained_weights.stored import StoredWeights
from deeplab2_kmax.pretrained_weights.tensorflow_checkpoints import read_checkpoint

__all__ = ["load_pretrained_weights", "require_pretrained_weights"]

_KERAS_FILES = (".h5", ".hdf5")
_BLOCK = re.compile(r"^encoder/(?:stages/|_blocks/|_stage)(\d)/(?:layer_with_weights-|_block)?(\d+)/")
# On MaX-DeepLab's skeleton: decoder layers, extra layers and centers, which no classifier has.
_NEW_IN_ENCODER = re.compile(r"_transformer/|_extra|memory_feature")
# May be left at their initial values: DeepLab2 loads no moving statistics of a MOAT.
_DISPENSABLE = ("moving_mean", "moving_variance")
# May be left over: a table of position biases that the encoder was asked to do without.
_REMOVABLE = ("relative_position_embedding",)


def require_pretrained_weights(path: str) -> None:
    """Raises CheckpointError where nothing that could be loaded is at `path`."""
    if not path.endswith(_KERAS_FILES):
        try:
            resolve_checkpoint(path)
        except CheckpointError as error:
            raise CheckpointError(f"pretrained_weights: {error}") from error
    elif not tf.io.gfile.exists(path):
        raise CheckpointError(f"pretrained_weights: no such file: {path!r} ({os.path.abspath(path)})")


def load_pretrained_weights(
    model: tf.keras.Model, path: str, backbone: str, batch_norm_epsilon: float = 1e-3
) -> RestoreReport:
    """Assigns the variables of the pixel encoder, or of MaX-DeepLab's backbone, from a file.

    Args:
        model: from `build_model`.
        path: a TensorFlow checkpoint (prefix or folder) in one of the layouts of `tensorflow_checkpoints`, or an HDF5
            file of a Keras application (`keras_applications`).
        backbone: the encoder's name in the config.
        batch_norm_epsilon: of the encoder's batch norms.

    Returns:
        What was loaded and what was not. Unused are, for instance, the weights of a classifier.

    Raises:
        CheckpointError: there is no such file, or it holds the weights of another encoder. Nothing has been assigned
            then.
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
    report = _compare(path, {key: tuple(value.shape) for key, value in variables.items()}, stored)
    if _is_another_encoder(report, variables):
        raise CheckpointError(
            f"{path} does not hold weights of {backbone}\n"
            f"    expected {_described((key, value.shape) for key, value in variables.items())}\n"
            f"    received {_described((key, value.shape) for key, value in stored.items())}\n"
            f"    {report}"
        )
    values = {key: stored[key].read() for key in report.loaded}
    for key, value in values.items():
        variables[key].assign(value)
    logging.info("%s", report)
    return report


def _compare(path: str, wanted: dict[str, tuple[int, ...]], stored: StoredWeights) -> RestoreReport:
    fitting = {key for key, shape in wanted.items() if key in stored and stored[key].shape == shape}
    return RestoreReport(
        path=path,
        loaded=tuple(sorted(fitting)),
        missing=tuple(sorted(wanted.keys() - stored.keys())),
        misshaped=tuple(
            f"{key}: {list(stored[key].shape)} -> {list(wanted[key])}"
            for key in sorted((wanted.keys() & stored.keys()) - fitting)
        ),
        unused=tuple(sorted(stored.keys() - wanted.keys())),
    )


def _is_another_encoder(report: RestoreReport, variables: Iterable[str]) -> bool:
    """Whether more is amiss than a classifier left over, or the few things that may be missing or left over."""
    if not report.loaded or report.misshaped or any(not key.endswith(_DISPENSABLE) for key in report.missing):
        return True
    parts = {_part(key) for key in variables}
    return any(_part(key) in parts and not key.endswith(_REMOVABLE) for key in report.unused)


def _part(key: str) -> str:
    """What of the encoder a key belongs to, e.g. "encoder/stages" or "encoder/_stage"."""
    return re.sub(r"\d+$", "", "/".join(key.split("/")[:2]))


def _described(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """The weights of a file or an encoder in a few words."""
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
    return f"stages of {counts or 'no'} blocks, {weights:,} weights"
