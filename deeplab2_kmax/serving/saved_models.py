"""Running SavedModels, and post-processing by other thresholds than an export was made with: both need TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab2_kmax.config import apply_override
from deeplab2_kmax.errors import CheckpointError, ConfigError
from deeplab2_kmax.postprocessing import Postprocessor, build_postprocessor, undo_resize
from deeplab2_kmax.postprocessing.settings import FIELDS
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving import assets
from deeplab2_kmax.serving.formats.runtime import USED_MAPS
from deeplab2_kmax.wording import first_line


def saved_model_run(path: str, overrides: Sequence[str] = ()) -> Callable[[np.ndarray], dict[str, tf.Tensor]]:
    """What takes a picture [1, H, W, 3] uint8 to the maps [1, H, W] that a SavedModel finds.

    Args:
        path: folder of an export of ours or DeepLab2's.
        overrides: see `Predictor.from_saved_model`.

    Raises:
        CheckpointError: it is damaged, of another kind, or cannot be post-processed by other settings.
        ConfigError: one of `overrides` is wrong.
    """
    loaded = load_saved_model(path)
    if overrides:
        return _with_other_settings(loaded, path, overrides)
    # DeepLab2's exports take single pictures only; ours take both.
    return lambda images: loaded(tf.constant(images[0]))


def load_saved_model(path: str) -> Any:
    """Loads a SavedModel; raises CheckpointError where it is damaged, or does not segment pictures."""
    try:
        loaded = tf.saved_model.load(path)
    except Exception as error:  # Each kind of damage has its own, and TensorFlow documents none of them.
        raise CheckpointError(
            f"{path}: expected a whole SavedModel, got one whose files are cut, damaged or missing"
            f" ({first_line(error)}); copy it again, or export it anew"
        ) from error
    signature = getattr(loaded, "signatures", {}).get("serving_default")
    outputs = signature.structured_outputs if signature is not None else {}
    if not callable(loaded) or not set(USED_MAPS).issubset(outputs):
        raise CheckpointError(f"{path}: expected an exported segmentation model, got a SavedModel of another kind")
    return loaded


def _with_other_settings(loaded: Any, path: str, overrides: Sequence[str]) -> Callable[[Any], dict[str, tf.Tensor]]:
    """What segments pictures by the network of an export and post-processing of our own."""
    if not assets.is_export(path) or "raw" not in loaded.signatures:
        raise CheckpointError(
            f"{path}: this SavedModel has its thresholds built in and no signature 'raw' to go round them; export the"
            " checkpoint again, or leave the overrides out"
        )
    postprocess = other_postprocessor(path, overrides)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8)])
    def segment(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = loaded.signatures["raw"](input_tensor=images)
        maps = postprocess(outputs)
        return undo_resize({name: maps[name] for name in USED_MAPS}, outputs["resized_size"], tf.shape(images)[1:3])

    return segment


def other_postprocessor(path: str, overrides: Sequence[str]) -> Postprocessor:
    """The post-processing of the export in `path` by other thresholds."""
    config = assets.read_config(path)
    changed = config_pb2.ExperimentOptions()
    changed.CopyFrom(config)
    for override in overrides:
        apply_override(changed, override)
    postprocess = build_postprocessor(changed)
    for field in FIELDS:
        config.evaluator_options.ClearField(field)
        changed.evaluator_options.ClearField(field)
    if changed != config:
        raise ConfigError(
            f"{path}: expected overrides of post-processing only (of evaluator_options: {', '.join(FIELDS)}), got"
            f" {' '.join(overrides)}; everything else is built into an export: export the checkpoint again with it"
        )
    return postprocess
