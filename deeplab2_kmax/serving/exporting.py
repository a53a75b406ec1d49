"""Writes a trained model as a file that is run without this package: a SavedModel, or for another runtime."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.files import fingerprint
from deeplab2_kmax.input_pipeline.resizing import PADDING_GREY
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving import assets, formats
from deeplab2_kmax.serving.inference import InferenceModel
from deeplab2_kmax.serving.int8 import quantized, require_pictures
from deeplab2_kmax.serving.portable import checked_conversion, portable_function, require_portable
from deeplab2_kmax.serving.whole_folder import named_disk, whole_folder
from deeplab2_kmax.version import __version__


def export(
    config: config_pb2.ExperimentOptions,
    checkpoint: str | os.PathLike | None,
    output_path: str | os.PathLike,
    file_format: str = formats.SAVED_MODEL,
    quantize: str | os.PathLike | None = None,
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

    A file for another runtime takes pictures that have been brought to the network's input size, and returns these maps
    at that size, and the logits: see `portable`. Before it gets its place it has been run there and compared.

    Args:
        config: the experiment; the sizes and thresholds of its evaluation are built in.
        checkpoint: prefix, or a folder, of which the last whole checkpoint is taken; None leaves the weights random.
        output_path: folder to write, local or remote. It appears as a whole or not at all. An earlier export there is
            replaced; anything else there is refused.
        file_format: one of `formats.NAMES`.
        quantize: for OpenVINO only: folder of pictures like those that the model is to see; the network then computes
            in INT8, in ranges of values that are found from them. `export.json` says what it costs: differences from
            TensorFlow, and, where the evaluation data of the config is there, panoptic quality.

    Returns:
        `output_path`.

    Raises:
        ConfigError: the model of `config` is not supported, or not in this format.
        CheckpointError: there is no checkpoint, or it does not fit the model.
        UserError: the runtime of the format is not installed, cannot run the model, or computes something else; the
            folder cannot be made, or holds something other than an earlier export.
        StorageError: it cannot be written, as on a disk that is full.
    """
    output_path = os.fspath(output_path).rstrip("/")
    runtime = None if file_format == formats.SAVED_MODEL else formats.RUNTIMES[file_format]
    if runtime is not None:
        require_portable(config, runtime)
    pictures = None if quantize is None else require_pictures(runtime, file_format, os.fspath(quantize))
    write = _write_saved_model
    if runtime is not None:
        write = functools.partial(_write_portable, runtime=runtime, pictures=pictures)
    with whole_folder(output_path) as folder:
        model = InferenceModel.from_checkpoint(config, checkpoint)
        with named_disk(output_path):
            facts = write(config, model, folder)
            assets.write_assets(
                folder, config, model.dataset, {**_facts(config, model), "format": file_format, **facts}
            )
    logging.info("exported to %s", output_path)
    return output_path


def _write_saved_model(config: config_pb2.ExperimentOptions, model: InferenceModel, folder: str) -> dict[str, Any]:
    """Writes the SavedModel; returns what `export.json` says of it."""
    servable = _Servable(model)
    # An export has no gradients. TensorFlow would store those that activations such as MOAT's bring, and cannot.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(servable, folder, signatures=servable.signatures(), options=options)
    height, width = config.eval_dataset_options.crop_size
    assets.write_requests(folder, (height, width))
    return {
        "input": {
            "pixels": "uint8 RGB, 0 to 255, of any height and width",
            "rule": "scaled, with its aspect ratio, to fit the sizes here, then padded on the right and at the bottom",
            **dataclasses.asdict(model.input_settings),
        },
    }


def _write_portable(
    config: config_pb2.ExperimentOptions,
    model: InferenceModel,
    folder: str,
    runtime: formats.Runtime,
    pictures: list[str] | None,
) -> dict[str, Any]:
    """Writes the file for another runtime, and compares; returns what `export.json` says of it."""
    function = portable_function(config, model, runtime.batch)
    contents, differences = checked_conversion(function, model, runtime)
    facts: dict[str, Any] = {"differences_from_tensorflow": differences}
    if pictures is not None:
        contents, facts["int8"] = quantized(config, model, runtime, contents, pictures)
    for name, content in contents.items():
        files.write_bytes(files.join(folder, name), content)
    return {
        "runtime": runtime.version(),
        "files": {name: assets.digest(content) for name, content in contents.items()},
        "input": {
            "name": "images",
            "shape": [runtime.batch, *model.input_settings.crop_size, 3],
            "pixels": "float32 RGB, 0 to 255",
            "rule": "scaled bilinearly with corners aligned, with its aspect ratio, to fit the sizes here, then padded"
            f" with {PADDING_GREY} on the right and at the bottom",
            **dataclasses.asdict(model.input_settings),
        },
        "outputs": sorted(function.structured_outputs),
        **facts,
    }


def _facts(config: config_pb2.ExperimentOptions, model: InferenceModel) -> dict[str, Any]:
    """What `export.json` says of an export."""
    return {
        "deeplab2_kmax": __version__,
        "tensorflow": tf.__version__,
        "experiment": config.experiment_name,
        "checkpoint": model.checkpoint,
        "checkpoint_fingerprint": model.checkpoint and fingerprint(model.checkpoint),
        "precision": config.model_options.precision,
        "weights": "variables" if model.weights else "constants",
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
