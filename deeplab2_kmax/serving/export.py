"""Writes a trained model as a SavedModel, which any TensorFlow program loads without this package."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.files import fingerprint
from deeplab2_kmax.errors import StorageError, UserError
from deeplab2_kmax.folder_lock import hold_lock, lock_files
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving import assets
from deeplab2_kmax.serving.inference import InferenceModel
from deeplab2_kmax.storage_errors import storage_fault
from deeplab2_kmax.version import __version__

# The endings of the folders beside an export that is being written, and of its lock.
_TEMPORARY, _REPLACED, _LOCK = ".tmp", ".old", ".lock"


def export(
    config: config_pb2.ExperimentOptions, checkpoint: str | os.PathLike | None, output_path: str | os.PathLike
) -> str:
    """Exports the model of a config with the weights of a checkpoint.

    The SavedModel has four signatures:
      - `serving_default`: `input_tensor` uint8 [B, H, W, 3] RGB;
      - `image`: `input_tensor` uint8 [H, W, 3], as DeepLab2's exports take it; the maps have a batch of 1;
      - `encoded`: `encoded` string [B], contents of JPEG or PNG files, which may differ in size. EXIF orientation
        turns them upright. TensorFlow decodes them, and CMYK may differ; docs/data.md says how to give such pictures.
      - `raw`: `input_tensor` as for the first; the logits that maps are made from, see `InferenceModel.raw`.
    The others return the maps of `InferenceModel` at the sizes of the pictures. The loaded object itself can be called
    with the inputs of the first two. The classes of the data set, the resolved config, facts such as the checkpoint's
    fingerprint, and requests by which TensorFlow Serving warms up are in `assets.extra/`.

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
        StorageError: it cannot be written, as on a disk that is full.
    """
    output_path = os.fspath(output_path).rstrip("/")
    with _whole_folder(output_path) as folder:
        model = InferenceModel.from_checkpoint(config, checkpoint)
        servable = _Servable(model)
        signatures = servable.signatures()
        with _named_disk(output_path):
            tf.saved_model.save(servable, folder, signatures=signatures)
            assets.write_assets(folder, config, model.dataset, _facts(config, model))
    logging.info("exported to %s", output_path)
    return output_path


def _facts(config: config_pb2.ExperimentOptions, model: InferenceModel) -> dict[str, Any]:
    """What `export.json` says of an export."""
    settings = model.input_settings
    return {
        "deeplab2_kmax": __version__,
        "tensorflow": tf.__version__,
        "experiment": config.experiment_name,
        "checkpoint": model.checkpoint,
        "checkpoint_fingerprint": model.checkpoint and fingerprint(model.checkpoint),
        "precision": config.model_options.precision,
        "weights": "variables" if model.weights else "constants",
        "input": {
            "pixels": "uint8 RGB, 0 to 255, of any height and width",
            "rule": "scaled, with its aspect ratio, to fit the sizes here, then padded on the right and at the bottom",
            **dataclasses.asdict(settings),
        },
    }


class _Servable(tf.Module):
    """The object that is saved: the weights, and the four ways to call the model."""

    def __init__(self, model: InferenceModel):
        super().__init__(name="servable")
        # Every object that a tf.Module refers to, layers and functions included, is saved with it, and makes saving and
        # loading slower. So this one refers to the variables only, and hides the model in plain functions.
        self._weights = model.weights
        self._segment = lambda images: model.segment(images)
        self._segment_encoded = lambda files: model.segment_encoded(files)
        self._raw = lambda images: model.raw(images)

    @tf.function(autograph=False)
    def __call__(self, input_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._segment(input_tensor if input_tensor.shape.rank == 4 else input_tensor[None])

    def signatures(self) -> dict[str, Callable]:
        """Traces the signatures of the SavedModel, and with them the two input shapes of `__call__`."""
        batch = tf.TensorSpec([None, None, None, 3], tf.uint8, name="input_tensor")
        image = tf.TensorSpec([None, None, 3], tf.uint8, name="input_tensor")
        encoded = tf.function(lambda encoded: self._segment_encoded(encoded), autograph=False)
        raw = tf.function(lambda input_tensor: self._raw(input_tensor), autograph=False)
        return {
            "serving_default": self.__call__.get_concrete_function(batch),
            "image": self.__call__.get_concrete_function(image),
            "encoded": encoded.get_concrete_function(tf.TensorSpec([None], tf.string, name="encoded")),
            "raw": raw.get_concrete_function(batch),
        }


@contextlib.contextmanager
def _named_disk(path: str) -> Iterator[None]:
    """Raises a StorageError about `path` where the operating system cannot write."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = storage_fault(error)
        if reason is None:
            raise
        raise StorageError(f"{path}: cannot write the export: {reason}; nothing of it is left there") from error


@contextlib.contextmanager
def _whole_folder(path: str) -> Iterator[str]:
    """Yields a temporary folder, which becomes `path` when the block has ended and is deleted if the block fails.

    What killed exports have left beside a local `path` is cleared away first. On remote storage, where nothing tells
    whether an export is still being written, it stays.
    """
    # Beside the destination, on the same file system, so that renaming does not copy.
    own = f"{path}.{uuid.uuid4().hex[:8]}"
    with contextlib.ExitStack() as stack:
        try:
            if not files.is_remote(path):
                stack.enter_context(_marked_as_alive(own))
                _clear_leftovers(path)
            _refuse_foreign(path)
            files.make_folder(own + _TEMPORARY)
        except OSError as error:
            raise UserError(f"{path}: cannot write there: {error.strerror}") from error
        stack.callback(files.remove_tree, own + _TEMPORARY)
        yield own + _TEMPORARY
        with _named_disk(path):
            files.sync_tree(own + _TEMPORARY)
            _put_in_place(own + _TEMPORARY, path, own + _REPLACED)


@contextlib.contextmanager
def _marked_as_alive(own: str) -> Iterator[None]:
    """Holds a lock beside the folders of an export, which is free again once its process is gone in whatever way."""
    with hold_lock(own + _LOCK):
        try:
            yield
        finally:
            for name in lock_files(own + _LOCK):
                files.remove(name)


def _clear_leftovers(path: str) -> None:
    """Deletes what killed exports to `path` have left; an earlier export that was being replaced gets its name back."""
    folder, name = files.parent(path), os.path.basename(path)
    kinds = "|".join(map(re.escape, (_TEMPORARY, _REPLACED, _LOCK)))
    pattern = re.compile(rf"({re.escape(name)}\.[0-9a-f]{{8}})({kinds})")
    found = filter(None, map(pattern.fullmatch, files.list_folder(folder or ".")))
    for leftover in sorted({files.join(folder, match[1]) for match in found}):
        try:
            with _marked_as_alive(leftover):
                if files.exists(leftover + _REPLACED) and not files.exists(path):
                    files.rename(leftover + _REPLACED, path)
                for kind in (_TEMPORARY, _REPLACED):
                    files.remove_tree(leftover + kind)
        except OSError:
            continue  # Of an export that is still being written, this one perhaps; or another user's.


def _refuse_foreign(path: str) -> None:
    if files.exists(path) and not assets.is_export(path) and not _is_empty_folder(path):
        raise UserError(
            f"{path}: expected a new or empty folder or an earlier export, got something else; choose another folder or"
            " remove it"
        )


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
