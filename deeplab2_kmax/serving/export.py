"""Writes a trained model as a SavedModel, which any TensorFlow program loads without this package."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving import assets
from deeplab2_kmax.serving.inference import InferenceModel


def export(
    config: config_pb2.ExperimentOptions, checkpoint: str | os.PathLike | None, output_path: str | os.PathLike
) -> str:
    """Exports the model of a config with the weights of a checkpoint.

    The SavedModel has three signatures:
      - `serving_default`: `input_tensor` uint8 [B, H, W, 3] RGB;
      - `image`: `input_tensor` uint8 [H, W, 3], as DeepLab2's exports take it; the maps have a batch of 1;
      - `encoded`: `encoded` string [B], contents of JPEG or PNG files, which may differ in size. EXIF orientation
        turns them upright. TensorFlow decodes them, and CMYK may differ; docs/data.md says how to give such pictures.
    Each returns the maps of `InferenceModel` at the sizes of the pictures. The loaded object itself can be called with
    the inputs of the first two. The classes of the data set and the resolved config are in `assets.extra/`.

    Args:
        config: the experiment; the sizes and thresholds of its evaluation are built in.
        checkpoint: prefix, or a folder, of which the last whole checkpoint is taken; None leaves the weights random.
        output_path: folder to write, local or remote. It appears as a whole or not at all. An earlier export there is
            replaced; anything else there is refused.

    Returns:
        `output_path`.

    Raises:
        ConfigError: the model of `config` is not supported.
        CheckpointError: there is no checkpoint, or it does not fit the model.
        UserError: the folder cannot be made, or holds something other than an earlier export.
        OSError, tf.errors.OpError: writing fails later on, as on a disk that is full.
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
    """The object that is saved: the weights, and the three ways to call the model."""

    def __init__(self, model: InferenceModel):
        super().__init__(name="servable")
        # Every object that a tf.Module refers to, layers and functions included, is saved with it, and makes saving and
        # loading slower. So this one refers to the variables only, and hides the model in plain functions.
        self._weights = model.weights
        self._segment = lambda images: model.segment(images)
        self._segment_encoded = lambda files: model.segment_encoded(files)

    @tf.function(autograph=False)
    def __call__(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._segment(input_tensor if input_tensor.shape.rank == 4 else input_tensor[None])

    def signatures(self) -> dict[str, Callable]:
        """Traces the signatures of the SavedModel, and with them the two input shapes of `__call__`."""
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
    """Yields a temporary folder, which becomes `path` when the block has ended and is deleted if the block fails."""
    if files.exists(path) and not assets.is_export(path) and not _is_empty_folder(path):
        raise UserError(
            f"{path}: expected a new or empty folder or an earlier export, got something else; choose another folder or"
            " remove it"
        )
    # Beside the destination, on the same file system, so that renaming does not copy.
    temporary, replaced = (f"{path}.{uuid.uuid4().hex[:8]}.{kind}" for kind in ("tmp", "old"))
    try:
        files.make_folder(temporary)
    except OSError as error:
        raise UserError(f"{path}: cannot write there: {error.strerror}") from error
    try:
        yield temporary
        _put_in_place(temporary, path, replaced)
    finally:
        files.remove_tree(temporary)


def _put_in_place(temporary: str, path: str, replaced: str) -> None:
    """Renames `temporary` to `path`; an earlier export is kept under the name `replaced` until that has worked."""
    if not files.exists(path):
        files.rename(temporary, path)
        return
    files.rename(path, replaced)
    try:
        files.rename(temporary, path)
    except OSError:
        files.rename(replaced, path)
        raise
    files.remove_tree(replaced)


def _is_empty_folder(path: str) -> bool:
    return files.is_folder(path) and not files.list_folder(path)
