"""From a picture to segments, in Python."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import tensorflow as tf

from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.errors import CheckpointError, DataError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.serving import assets
from deeplab2_kmax.serving.inference import InferenceModel
from deeplab2_kmax.visualization import overlay


@dataclasses.dataclass(frozen=True)
class Segment:
    """One segment of a picture.

    Attributes:
      id: its panoptic id, `class_id * label_divisor + instance id`.
      class_id: id of its class in the data set.
      class_name: name of that class.
      is_thing: whether it is one countable object (else a region of stuff).
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
    """What a model sees in one picture.

    Attributes:
      image: [H, W, 3] uint8 RGB, the picture.
      panoptic_map: [H, W] int32 panoptic ids; void is `dataset.void_id`.
      segments: all segments but void, largest first.
      dataset: the classes the model knows.
    """

    image: np.ndarray
    panoptic_map: np.ndarray
    segments: tuple[Segment, ...]
    dataset: DatasetDescriptor

    def overlay(self, **options) -> np.ndarray:
        """The picture with its segments drawn over it, uint8 RGB; options as in `visualization.overlay`."""
        return overlay(self.image, self.panoptic_map, self.dataset, **options)


class Predictor:
    """Runs a model on single pictures.

        predictor = Predictor.from_saved_model("export")
        prediction = predictor(rgb)

    The first call is slower than the others: TensorFlow prepares the graph.
    """

    def __init__(self, run, dataset: DatasetDescriptor):
        """Args: run: [1, H, W, 3] uint8 tensor -> dict of [1, H, W] maps; dataset: the classes in these maps."""
        self._run = run
        self.dataset = dataset

    @classmethod
    def from_saved_model(cls, path: str | os.PathLike, dataset: str | None = None) -> Predictor:
        """Loads what `export` wrote, or DeepLab2's own export.

        Args:
          path: folder of the SavedModel.
          dataset: name or descriptor file of its data set; needed only for a SavedModel that does not say it.

        Raises:
          CheckpointError: no SavedModel there, one of another kind, or one that does not name its data set.
        """
        path = os.fspath(path)
        if not tf.saved_model.contains_saved_model(path):
            raise CheckpointError(f"{path}: expected the folder of a SavedModel (saved_model.pb), found none")
        if dataset is None and not assets.is_export(path):
            raise CheckpointError(f"{path}: this SavedModel does not name its classes; say which data set it is for")
        descriptor = load_dataset(dataset) if dataset else assets.read_dataset(path)
        loaded = tf.saved_model.load(path)
        if not callable(loaded):
            raise CheckpointError(f"{path}: this SavedModel is not an exported segmentation model")
        # DeepLab2's exports take single pictures only; ours take both.
        return cls(lambda images: loaded(images[0]), descriptor)

    @classmethod
    def from_checkpoint(cls, config: config_pb2.ExperimentOptions, checkpoint: str | os.PathLike) -> Predictor:
        """Builds the model of `config` with the weights of a checkpoint (a prefix, or a folder: its latest one).

        Raises:
          ConfigError, CheckpointError: as `InferenceModel.from_checkpoint`.
        """
        model = InferenceModel.from_checkpoint(config, checkpoint)
        # A bound tf.function holds its object weakly; the lambda keeps the model alive.
        return cls(lambda images: model.segment(images), model.dataset)

    def __call__(self, image: np.ndarray) -> Prediction:
        """Segments one picture.

        Args:
          image: [H, W, 3] uint8 RGB; also [H, W] or [H, W, 1] greyscale, repeated over the channels, and
            [H, W, 4] RGBA, whose transparency is dropped.

        Raises:
          DataError: another shape or dtype.
        """
        image = as_rgb(image)
        maps = self._run(tf.constant(image[None]))
        panoptic = maps["panoptic_pred"][0].numpy()
        scores = maps["semantic_scores"][0].numpy() * maps["instance_scores"][0].numpy()
        return Prediction(image, panoptic, list_segments(panoptic, scores, self.dataset), self.dataset)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 from a greyscale, RGB or RGBA picture of uint8; anything else raises DataError."""
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
    """The segments of a panoptic map, largest first, void left out.

    Args:
      panoptic: [H, W] int panoptic ids.
      scores: [H, W] float confidence of each pixel.
      dataset: the classes.
    """
    ids, index = np.unique(panoptic, return_inverse=True)
    areas = np.bincount(index.ravel())
    means = np.bincount(index.ravel(), weights=scores.ravel()) / areas
    segments = []
    for row in np.argsort(-areas, kind="stable"):
        segment_class = dataset.by_id.get(int(ids[row]) // dataset.label_divisor)
        if segment_class is None:
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
