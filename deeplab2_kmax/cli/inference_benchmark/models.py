"""The models that are measured: exports, networks of configs, and whatever can be called with a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab2_kmax.config import load_config, require_supported
from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.layers.folding import fold_batch_norms
from deeplab2_kmax.pictures import read_image
from deeplab2_kmax.postprocessing import build_postprocessor, undo_resize
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving import assets, formats
from deeplab2_kmax.serving.inference import InferenceModel, InputSettings, inference_config
from deeplab2_kmax.serving.predictor import in_other_runtime, list_segments, require_saved_model
from deeplab2_kmax.serving.saved_models import load_saved_model

# Height and width of a network's input in pixels.
Size = tuple[int, int]
Outputs = dict[str, tf.Tensor]

# Of random weights: the squares of a chess board of so many rows, each of which is a segment; by how much its slot is
# surer than others; and the range to which the logits of the network itself are limited.
_ROWS, _SURE, _NOISE = 5, 12.0, 1.0
# The largest value that is added to weights which are all alike.
_UNEVEN = 0.1


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a model comes from: an export, or a config, perhaps with a checkpoint.

    Attributes:
        model: folder of an export; None: the network of a config.
        config_file: a file, or the name of a shipped config.
        overrides: of fields of that config.
        checkpoint: prefix, or a folder, of which the last whole checkpoint is taken; None leaves the weights random.
        precision: of an export for another runtime than TensorFlow, see `Predictor.from_saved_model`.
    """

    model: str | None = None
    config_file: str | None = None
    overrides: tuple[str, ...] = ()
    checkpoint: str | None = None
    precision: str | None = None

    @property
    def name(self) -> str:
        """What the model is called in tables."""
        if self.model is not None:
            return f"{self.model}, {self.precision}" if self.precision else self.model
        return f"{self.config_file}, {self.checkpoint or 'random weights'}"

    def config(self) -> config_pb2.ExperimentOptions:
        """The resolved config of the model.

        Raises:
            CheckpointError: the export is none of ours.
            ConfigError: the config cannot be read.
        """
        if self.model is None:
            assert self.config_file is not None
            return load_config(self.config_file, self.overrides)
        _require_export(self.model)
        config = assets.read_config(self.model)
        if self.precision == "bfloat16":
            config.model_options.precision = "mixed_bfloat16"  # The config's name for it.
        return config

    def open(self) -> BenchmarkedModel:
        """Loads or builds the model.

        Raises:
            CheckpointError: there is no export or checkpoint, or it does not fit.
            ConfigError: the config cannot be read, or is not supported.
        """
        config = self.config()
        if self.model is not None:
            if (file_format := assets.read_format(self.model)) != formats.SAVED_MODEL:
                return _of_other_runtime(self, file_format, config)
            return _of_export(self.model, config)
        if self.checkpoint is not None:
            model = InferenceModel.from_checkpoint(config, self.checkpoint)
        else:
            model = _with_random_weights(config)
        # A bound tf.function holds its object weakly; the lambdas keep the model alive.
        segment, network = (lambda pictures: model.segment(pictures)), (lambda pictures: model.raw(pictures))
        return _in_stages(self.name, config, model.dataset, segment, network)


@dataclasses.dataclass(frozen=True)
class BenchmarkedModel:
    """What is measured. All functions return when their work is done.

    Attributes:
        name: what it is called in tables.
        segment: takes pictures [B, H, W, 3] uint8 RGB, all of one size, to panoptic maps [B, H, W] int32 and lists of
            their segments, which it need not return.
        config: of the network, where it is known: for its size, its precision, and to count its multiply-adds.
        network: takes the same pictures to what `postprocess` takes; None where the model has no such parts.
        postprocess: takes what `network` returns, and height and width of the pictures, to maps and lists of segments.
    """

    name: str
    segment: Callable[[np.ndarray], object]
    config: config_pb2.ExperimentOptions | None = None
    network: Callable[[np.ndarray], Any] | None = None
    postprocess: Callable[[Any, Size], object] | None = None

    @classmethod
    def of_predictor(
        cls, name: str, predictor: Callable[[np.ndarray], object], config: config_pb2.ExperimentOptions | None = None
    ) -> BenchmarkedModel:
        """What takes single pictures [H, W, 3], as `Predictor` does; a batch is taken picture by picture."""
        return cls(name, lambda pictures: [predictor(picture) for picture in pictures], config)

    @property
    def precision(self) -> str:
        """A name as in `model_options.precision`."""
        return (self.config.model_options.precision if self.config else "") or "float32"


def input_size(config: config_pb2.ExperimentOptions) -> Size:
    """The size of the network's input."""
    height, width = config.eval_dataset_options.crop_size
    return height, width


def decoded(picture: str, batch: int) -> np.ndarray:
    """Decodes a picture file `batch` times: [batch, H, W, 3] uint8."""
    return np.stack([read_image(picture) for _ in range(batch)])


def _of_export(path: str, config: config_pb2.ExperimentOptions) -> BenchmarkedModel:
    loaded, dataset = load_saved_model(path), assets.read_dataset(path)
    raw = loaded.signatures.get("raw")
    # Exports of earlier versions cannot be run in parts.
    network = None if raw is None else lambda pictures: raw(input_tensor=pictures)
    return _in_stages(path, config, dataset, loaded, network)


def _of_other_runtime(source: Source, file_format: str, config: config_pb2.ExperimentOptions) -> BenchmarkedModel:
    """An export for another runtime than TensorFlow, which is not run in parts."""
    assert source.model is not None
    segment = in_other_runtime(file_format, source.model, (), source.precision)
    dataset, limit = assets.read_dataset(source.model), formats.RUNTIMES[file_format].batch

    def segmented(pictures: np.ndarray) -> np.ndarray:
        step = limit or len(pictures)
        parts = [pictures[start : start + step] for start in range(0, len(pictures), step)]
        return np.concatenate([_listed(segment(part), dataset) for part in parts])

    return BenchmarkedModel(source.name, segmented, config)


def _in_stages(
    name: str,
    config: config_pb2.ExperimentOptions,
    dataset: DatasetDescriptor,
    segment: Callable[[tf.Tensor], Outputs],
    network: Callable[[tf.Tensor], Outputs] | None,
) -> BenchmarkedModel:
    """A model of which the maps of a batch, and perhaps the logits, can be had as tensors."""
    maps_of = build_postprocessor(config)

    @tf.function(autograph=False, reduce_retracing=True)
    def postprocess(outputs: Outputs, size: tf.Tensor) -> Outputs:
        return undo_resize(maps_of(outputs), outputs["resized_size"], size)

    def segmented(pictures: np.ndarray) -> np.ndarray:
        return _listed(segment(tf.constant(pictures)), dataset)

    if network is None:
        return BenchmarkedModel(name, segmented, config)

    def run_network(pictures: np.ndarray) -> Outputs:
        outputs = network(tf.constant(pictures))
        outputs["transformer_class_logits"].numpy()  # Waits for a GPU.
        return outputs

    def run_postprocessing(outputs: Outputs, size: Size) -> np.ndarray:
        return _listed(postprocess(outputs, tf.constant(size)), dataset)

    return BenchmarkedModel(name, segmented, config, run_network, run_postprocessing)


def _listed(maps: Mapping[str, Any], dataset: DatasetDescriptor) -> np.ndarray:
    """The panoptic maps, after the segments of each have been listed, as `Predictor` does."""
    panoptic = np.asarray(maps["panoptic_pred"])
    scores = np.asarray(maps["semantic_scores"]) * np.asarray(maps["instance_scores"])
    for each in zip(panoptic, scores):
        list_segments(*each, dataset)
    return panoptic


def _with_random_weights(config: config_pb2.ExperimentOptions) -> InferenceModel:
    """The network of a config without training, changed such that as much is computed as after it."""
    require_supported(config)
    config = inference_config(config)
    model = build_model(config)
    unlike_zero(model)
    return sure_of_segments(config, model)


def sure_of_segments(config: config_pb2.ExperimentOptions, model: Any) -> InferenceModel:
    """The untrained network of `inference_config`, as `Sure` has it, with its batch norms folded."""
    fold_batch_norms(model)
    sure: Any = Sure(model)
    dataset = load_dataset(config.eval_dataset_options.dataset)
    return InferenceModel(sure, build_postprocessor(config), InputSettings.from_options(config), dataset)


def unlike_zero(model: Any) -> None:
    """Changes weights that are all alike, so that as much is computed as after training.

    Training begins with zeros, such as the scale of the last norm of a residual branch. They may be constants in an
    export, and TensorFlow leaves out products with zeros.
    """
    for variable in model.variables:
        values = variable.numpy()
        if variable.dtype.is_floating and np.ptp(values) == 0:
            variable.assign(values + np.random.default_rng(0).uniform(0, _UNEVEN, values.shape).astype(values.dtype))


class Sure:
    """A network that finds the squares of a chess board, whatever it sees.

    With random weights, no slot is sure of a class or a pixel: every map would be void, and sooner done than others.
    The logits of the network are limited and added to those of the board, so all of them are computed.
    """

    def __init__(self, model: Any):
        self._model = model
        self.variables = model.variables

    def __call__(self, images: tf.Tensor, training: bool) -> Outputs:
        return self.added_to(self._model(images, training=training))

    @staticmethod
    def added_to(outputs: Outputs) -> Outputs:
        """The logits that are made of those of a network."""
        masks, classes = outputs["pixel_space_mask_logits"], outputs["transformer_class_logits"]
        (height, width, slots), void = masks.shape[1:], classes.shape[-1] - 1
        rows = min(_ROWS, int(slots**0.5))
        # Row and column of the board that a slot owns; those of no square have a row that does not exist.
        slot = np.arange(slots)
        in_row = slot // rows == (np.arange(height) * rows // height)[:, None]
        in_column = slot % rows == (np.arange(width) * rows // width)[:, None]
        # Neighbouring squares, and as far as there are enough classes all, have different ones.
        owned = np.where(slot < rows**2, slot * 5 % void, void)
        return {
            "pixel_space_mask_logits": _limited(masks) + _boost(in_row)[:, None] + _boost(in_column),
            "transformer_class_logits": _limited(classes) + _boost(owned[:, None] == np.arange(void + 1)),
        }


def _limited(logits: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(tf.cast(logits, tf.float32), -_NOISE, _NOISE)


def _boost(chosen: np.ndarray) -> np.ndarray:
    return _SURE * chosen.astype(np.float32)


def _require_export(path: str) -> None:
    """Raises CheckpointError unless there is an export that says for which size it is."""
    if assets.is_export(path) and assets.read_format(path) in formats.RUNTIMES:
        return
    require_saved_model(path)
    if not assets.is_export(path):
        raise CheckpointError(
            f"{path}: expected an export of `deeplab2-kmax export`, got a SavedModel that does not say which size it"
            " is for ; export its checkpoint anew"
        )
