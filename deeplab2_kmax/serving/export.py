"""Writes a trained model as a SavedModel, which any TensorFlow program loads without this package."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging

from deeplab2_kmax.errors import UserError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving import assets
from deeplab2_kmax.serving.inference import InferenceModel


def export(
    config: config_pb2.ExperimentOptions, checkpoint: str | os.PathLike | None, output_path: str | os.PathLike
) -> str:
    """Exports the model of a config with the weights of a checkpoint.

    The signatures are
      - `serving_default`: `input_tensor` uint8 [B, H, W, 3] RGB,
      - `image`: `input_tensor` uint8 [H, W, 3], the form of DeepLab2's exports; the maps have a batch of 1,
      - `encoded`: `encoded` string [B], contents of JPEG or PNG files, also of different sizes,
    each of which returns the maps of `InferenceModel` at the pictures' own sizes. The loaded object itself can be
    called with the first two. The classes of the data set and the resolved config lie in `assets.extra/`.

    Args:
      config: the experiment; the sizes and thresholds of its evaluation are built in.
      checkpoint: prefix, or folder with checkpoints (the latest is taken); None leaves the weights random.
      output_path: folder to write. It appears whole or not at all. An earlier export there is replaced, anything else
        is left alone.

    Returns:
      `output_path`.

    Raises:
      ConfigError, CheckpointError: as `InferenceModel.from_checkpoint`.
      UserError: the folder cannot be written, or holds something else than an earlier export.
    """
    output_path = os.fspath(output_path).rstrip("/")
    with _whole_folder(output_path) as folder:
        model = InferenceModel.from_checkpoint(config, checkpoint)
        servable = _Servable(model)
        tf.saved_model.save(servable, folder, signatures=servable.signatures())
        assets.write_assets(folder, config, model.dataset)
    logging.info("exported to %s", output_path)
    return output_path


class _Servable(tf.Module):
    """What a SavedModel holds: the weights, and the three ways to call the model.

    Everything a tf.Module refers to is saved as an object of its own, layers and functions included, which takes long
    to save and to load. So this one refers to the variables only; the model is hidden in plain functions.
    """

    def __init__(self, model: InferenceModel):
        super().__init__(name="servable")
        self._weights = model.weights
        self._segment = lambda images: model.segment(images)
        self._segment_encoded = lambda files: model.segment_encoded(files)

    @tf.function(autograph=False)
    def __call__(self, input_tensor):
        return self._segment(input_tensor if input_tensor.shape.rank == 4 else input_tensor[None])

    def signatures(self) -> dict[str, Callable]:
        """The signatures of the SavedModel; makes them, and with them the two forms of `__call__`."""
        batch = tf.TensorSpec([None, None, None, 3], tf.uint8, name="input_tensor")
        image = tf.TensorSpec([None, None, 3], tf.uint8, name="input_tensor")
        encoded = tf.function(lambda encoded: self._segment_encoded(encoded), autograph=False)
        return {
            "serving_default": self.__call__.get_concrete_function(batch),
            "image": self.__call__.get_concrete_function(image),
            "encoded": encoded.get_concrete_function(tf.TensorSpec([None], tf.string, name="encoded")),
        }


@contextlib.contextmanager
def _whole_folder(path: str) -> Iterator[str]:
    """Gives a temporary folder that takes the place of `path` when the block ends, and vanishes if the block fails."""
    if tf.io.gfile.exists(path) and not assets.is_export(path) and not _is_empty_folder(path):
        raise UserError(f"{path}: exists and is no earlier export; choose another folder or remove it")
    # Beside the destination, so that renaming does not copy.
    temporary, replaced = (f"{path}.{uuid.uuid4().hex[:8]}.{kind}" for kind in ("tmp", "old"))
    try:
        tf.io.gfile.makedirs(temporary)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"{path}: cannot write there: {getattr(error, 'message', error)}") from error
    try:
        yield temporary
        _put_in_place(temporary, path, replaced)
    finally:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.rmtree(temporary)


def _put_in_place(temporary: str, path: str, replaced: str) -> None:
    """Renames `temporary` to `path`; what was there waits under the name `replaced` until that has worked."""
    if not tf.io.gfile.exists(path):
        tf.io.gfile.rename(temporary, path)
        return
    tf.io.gfile.rename(path, replaced)
    try:
        tf.io.gfile.rename(temporary, path)
    except tf.errors.OpError:
        tf.io.gfile.rename(replaced, path)
        raise
    tf.io.gfile.rmtree(replaced)


def _is_empty_folder(path: str) -> bool:
    return tf.io.gfile.isdir(path) and not tf.io.gfile.listdir(path)
