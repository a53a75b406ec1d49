"""Segments pictures in Python: from the pixels of one picture to its segments, with names and scores.

Exports for some other runtimes run where there is no TensorFlow. So nothing here imports it; what needs it is in
`saved_models` and `inference`, which are imported when they are asked for.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.errors import CheckpointError, DataError, UserError
from deeplab2_kmax.serving import assets, formats
from deeplab2_kmax.serving.formats.runtime import USED_MAPS
from deeplab2_kmax.serving.numpy_resizing import InputRule, undo_resize
from deeplab2_kmax.visualization import overlay
from deeplab2_kmax.visualization.large_maps import count_segments, numbered_segments, row_blocks

if TYPE_CHECKING:
    from deeplab2_kmax.protos import config_pb2

# Takes pictures [B, H, W, 3] uint8 to maps [B, H, W], arrays or TensorFlow's tensors.
_Run = Callable[[np.ndarray], Mapping[str, Any]]

# What the graph of a SavedModel may be called: as one message, as text, or in parts.
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")


@dataclasses.dataclass(frozen=True)
class Segment:
    """One segment of a picture.

    Attributes:
        id: its panoptic id, `class_id * label_divisor + instance id`.
        class_id: id of its class in the data set.
        class_name: name of that class.
        is_thing: whether it is one countable object; otherwise it is a region of stuff.
        score: confidence, 0..1: class probability times mask probability, averaged over the segment's pixels.
        area: number of pixels.
    """

    id: int
    class_id: int
    class_name: str
    is_thing: bool
    score: float
    area: int


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A picture with the segments that a model finds in it.

    Attributes:
        image: [H, W, 3] uint8 RGB, the picture.
        panoptic_map: [H, W] int32 panoptic ids; void is `dataset.void_id`.
        segments: all segments except void, largest first.
        dataset: the classes that the model knows.
    """

    image: np.ndarray
    panoptic_map: np.ndarray
    segments: tuple[Segment, ...]
    dataset: DatasetDescriptor

    def overlay(self, **options: Any) -> np.ndarray:
        """Draws the segments over the picture; returns uint8 RGB. Options as in `visualization.overlay`."""
        return overlay(self.image, self.panoptic_map, self.dataset, **options)


class Predictor:
    """Runs a model on single pictures.

        predictor = Predictor.from_saved_model("export")
        prediction = predictor(rgb)

    The first call may be slower than the later ones: TensorFlow prepares the graph then.
    """

    def __init__(self, run: _Run, dataset: DatasetDescriptor):
        """Wraps a function that segments a batch of one.

        Args:
            run: takes a [1, H, W, 3] uint8 array and returns the [1, H, W] maps of `InferenceModel`.
            dataset: the classes in these maps.
        """
        self._run = run
        self.dataset = dataset

    @classmethod
    def from_saved_model(
        cls,
        path: str | os.PathLike,
        dataset: str | None = None,
        overrides: Sequence[str] = (),
        precision: str | None = None,
    ) -> Predictor:
        """Loads a SavedModel that `export` or DeepLab2 wrote, or what `export` wrote for another runtime.

        Args:
            path: folder of the export.
            dataset: name or descriptor file of its data set; needed only for DeepLab2's exports, which do not name it.
            overrides: "evaluator_options.field=value" each, for post-processing by other thresholds than those that are
                built into an export of `export`.
            precision: what the network of an export for another runtime is computed in: "float32" (None), or "bfloat16"
                where the runtime and the processor have it.

        Raises:
            CheckpointError: there is no SavedModel, it is damaged or of another kind, or it does not name its data set
                and neither does `dataset`.
            ConfigError: there is no data set `dataset`, or its descriptor is wrong; or one of `overrides` is wrong, or
                of something else than post-processing.
            UserError: the runtime that the export is for is not installed, or does not have the precision; or what
                `overrides` need, TensorFlow.
        """
        path = os.fspath(path)
        _require_readable(path)
        if assets.is_export(path):
            file_format = assets.read_format(path)
            if file_format != formats.SAVED_MODEL:
                descriptor = load_dataset(dataset) if dataset else assets.read_dataset(path)
                return cls(in_other_runtime(file_format, path, overrides, precision), descriptor)
        require_saved_model(path)
        if precision is not None:
            raise UserError(
                f"{path}: expected no precision for a SavedModel, which has it built in, got {precision}; export it"
                " with --override=model_options.precision=mixed_bfloat16, or for OpenVINO"
            )
        if dataset is None and not assets.is_export(path):
            raise CheckpointError(
                f"{path}: this SavedModel does not name its classes; say which data set it is for, by --dataset or the"
                " argument dataset"
            )
        descriptor = load_dataset(dataset) if dataset else assets.read_dataset(path)
        return cls(_tensorflow_part(f"{path}: a SavedModel").saved_model_run(path, overrides), descriptor)

    @classmethod
    def from_checkpoint(cls, config: config_pb2.ExperimentOptions, checkpoint: str | os.PathLike) -> Predictor:
        """Builds the model of `config` with the weights of a checkpoint.

        Args:
            config: from `load_config`.
            checkpoint: prefix, or a folder, of which the last whole checkpoint is taken.

        Raises:
            ConfigError: the model of `config` is not supported.
            CheckpointError: there is no checkpoint, or it does not fit the model.
        """
        from deeplab2_kmax.serving.inference import InferenceModel

        model = InferenceModel.from_checkpoint(config, checkpoint)
        # A bound tf.function holds its object weakly; the lambda keeps the model alive.
        return cls(lambda images: model.segment(images), model.dataset)

    def __call__(self, image: np.ndarray) -> Prediction:
        """Segments one picture.

        Args:
            image: [H, W, 3] uint8 RGB; also [H, W] or [H, W, 1] greyscale, which is repeated over the channels, and
                [H, W, 4] RGBA, whose transparency is dropped.

        Raises:
            DataError: the image has another shape or dtype.
        """
        image = as_rgb(image)
        # One map after the other, each freed once it is used: of a large picture, each takes hundreds of megabytes.
        maps = {name: values for name, values in self._run(image[None]).items() if name in USED_MAPS}
        panoptic = _array(maps.pop("panoptic_pred"))[0]
        scores = _array(maps.pop("semantic_scores"))[0]
        scores *= _array(maps.pop("instance_scores"))[0]
        return Prediction(image, panoptic, list_segments(panoptic, scores, self.dataset), self.dataset)


def _array(values: Any) -> np.ndarray:
    """An array of one's own with the values of a map."""
    array: np.ndarray = values if isinstance(values, np.ndarray) else values.numpy()
    return array


def require_saved_model(path: str) -> None:
    """Raises CheckpointError unless there is a SavedModel in the folder `path`; whether it is whole shows later."""
    _require_readable(path)
    if not _contains_saved_model(path):
        nearby = files.join(path, "export")
        hint = f"; there is one in {nearby}" if _contains_saved_model(nearby) else ""
        raise CheckpointError(f"{path}: expected the folder of a SavedModel (saved_model.pb), found none{hint}")


def _contains_saved_model(path: str) -> bool:
    return any(files.exists(files.join(path, name)) for name in _SAVED_MODEL)


def _require_readable(folder: str) -> None:
    """Raises CheckpointError where a folder may not be looked into, which is not the same as finding nothing there."""
    try:
        files.list_folder(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot read this folder: {error.strerror}") from error


def _tensorflow_part(what: str) -> ModuleType:
    """What needs TensorFlow; raises UserError where that is not installed."""
    try:
        from deeplab2_kmax.serving import saved_models
    except ImportError as error:
        raise UserError(
            f"{what} needs TensorFlow ({error}): install deeplab2_kmax with all that it depends on; exports of the"
            " formats openvino and onnx run without it, as they are"
        ) from error
    return saved_models


def in_other_runtime(file_format: str, path: str, overrides: Sequence[str], precision: str | None) -> _Run:
    """What segments pictures by an export for another runtime than TensorFlow, here between our own resizing."""
    runtime = formats.RUNTIMES.get(file_format)
    if runtime is None:
        raise CheckpointError(
            f"{path}: expected an export in one of the formats {', '.join(formats.NAMES)}, got {file_format!r}; load it"
            " by the version of deeplab2_kmax that wrote it, or a later one"
        )
    precision = precision or "float32"
    if precision not in runtime.precisions:
        raise UserError(
            f"{path}: expected the precision {' or '.join(runtime.precisions)}, which {runtime.name} has, got"
            f" {precision}"
        )
    runtime.version()
    run = runtime.load(_whole_files(path, runtime), precision)
    rule = InputRule.from_facts(assets.read_facts(path)["input"])
    postprocess = _tensorflow_part("to override thresholds").other_postprocessor(path, overrides) if overrides else None

    def segment(images: np.ndarray) -> dict[str, np.ndarray]:
        prepared, resized_size = rule.prepare(images)
        maps = run(prepared)
        if postprocess is not None:
            maps = {name: values.numpy() for name, values in postprocess(maps).items() if name in USED_MAPS}
        height, width = images.shape[1:3]
        return {name: undo_resize(maps[name], resized_size, (height, width)) for name in USED_MAPS}

    return segment


def _whole_files(path: str, runtime: formats.Runtime) -> formats.Contents:
    """The contents of an export's files; raises CheckpointError where one is missing, or is not as it was written."""
    digests = assets.read_facts(path).get("files", {})
    contents = {}
    for name in runtime.files:
        file = files.join(path, name)
        try:
            contents[name] = files.read_bytes(file)
        except OSError as error:
            raise CheckpointError(f"{file}: cannot read this file of an export: {error.strerror}") from error
        # Runtimes may crash where a file is damaged.
        if assets.digest(contents[name]) != digests.get(name):
            raise CheckpointError(
                f"{file}: expected the file as it was exported, got one that is cut, damaged or of another export; copy"
                " the folder again, or export it anew"
            )
    return contents


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Turns a greyscale, RGB or RGBA picture of uint8 into [H, W, 3]; raises DataError for anything else."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise DataError(f"image: expected pixels of uint8 (0..255), got {image.dtype}")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise DataError(f"image: expected [height, width, 3] RGB, greyscale or RGBA, got shape {image.shape}")
    if image.shape[-1] == 1:
        return image.repeat(3, -1)
    return image[..., :3]


def list_segments(panoptic: np.ndarray, scores: np.ndarray, dataset: DatasetDescriptor) -> tuple[Segment, ...]:
    """The segments of a panoptic map, largest first, without void.

    Args:
        panoptic: [H, W] int panoptic ids.
        scores: [H, W] float confidence of each pixel, 0..1.
        dataset: the classes of these ids.
    """
    # Weighted counts of each id give the sums of its scores in one pass over the picture.
    ids, index = numbered_segments(panoptic)
    areas = count_segments(index, len(ids))
    sums = np.zeros(len(ids))
    for rows in row_blocks(*index.shape):
        sums += np.bincount(index[rows].ravel(), weights=scores[rows].ravel(), minlength=len(ids))
    means = sums / areas
    segments = []
    for row in np.argsort(-areas, kind="stable"):
        segment_class = dataset.by_id.get(int(ids[row]) // dataset.label_divisor)
        if segment_class is None:  # Void, which is no class.
            continue
        segments.append(
            Segment(
                id=int(ids[row]),
                class_id=segment_class.id,
                class_name=segment_class.name,
                is_thing=segment_class.is_thing,
                score=float(means[row]),
                area=int(areas[row]),
            )
        )
    return tuple(segments)
