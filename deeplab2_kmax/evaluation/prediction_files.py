"""Predictions of an evaluation as files: pictures to look at, and raw label maps for other programs."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import tensorflow as tf
from PIL import Image

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import ConfigError, DataError
from deeplab2_kmax.protos import evaluator_pb2
from deeplab2_kmax.visualization import display_scale, overlay

RAW_FORMATS = ("two_channel_png", "three_channel_png", "two_channel_numpy_array")


@dataclasses.dataclass
class PredictionFiles:
    """Writes predictions below one folder, under DeepLab2's file names.

    `000000_image.png`, `000000_panoptic_prediction.png` and `000000_panoptic_label.png` show the first images
    (small ones enlarged, so that names can be read);
    `raw_panoptic/<image>` and `raw_semantic/<image>.png` hold the label maps of all.

    Attributes:
        folder: made when the first file is written.
        descriptor: the data set.
        pictures: how many images to show.
        raw_format: one of `RAW_FORMATS`, or None for no raw files. In "two_channel_png" red is the class and green the
            instance; "three_channel_png" adds blue, instance = 256 * green + blue; the array is [H, W, 3] int32 with
            class and instance in its first two channels.
        source_ids: write classes by the ids of the data set's own annotation files (void: 0) instead of training ids.
    """

    folder: str
    descriptor: DatasetDescriptor
    pictures: int = 0
    raw_format: str | None = None
    source_ids: bool = True

    def __post_init__(self):
        if self.raw_format not in (None, *RAW_FORMATS):
            raise ConfigError(
                f"raw_panoptic_format: expected one of {', '.join(RAW_FORMATS)}; came {self.raw_format!r}"
            )

    def begin(self) -> None:
        """Starts anew: the next image is number 0."""
        self._count = 0

    def wants_picture(self) -> bool:
        """Whether the next image is one to show."""
        return self._count < self.pictures

    def write(self, name: str, prediction: np.ndarray, truth: np.ndarray | None, image: np.ndarray | None) -> None:
        """Writes the files of one image.

        Args:
            name: its file name; the extension does not matter.
            prediction: [H, W] panoptic ids at the image's original size.
            truth: the same of the labels, or None.
            image: [h, w, 3] RGB 0..255 of any size; needed where `wants_picture()`.
        """
        if self.wants_picture() and image is not None:
            self._show(prediction, truth, image)
        if self.raw_format is not None:
            self._write_raw(os.path.splitext(name)[0], prediction)
        self._count += 1

    def _show(self, prediction: np.ndarray, truth: np.ndarray | None, image: np.ndarray) -> None:
        height, width = prediction.shape
        picture = Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))
        picture = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        self._save_png(f"{self._count:06d}_image", picture)
        maps = {"panoptic_prediction": prediction, "panoptic_label": truth}
        for kind, panoptic in maps.items():
            if panoptic is not None:
                drawn = overlay(picture, panoptic, self.descriptor, scale=display_scale(height, width))
                self._save_png(f"{self._count:06d}_{kind}", drawn)

    def _write_raw(self, name: str, prediction: np.ndarray) -> None:
        classes, instances = np.divmod(prediction, self.descriptor.label_divisor)
        if self.source_ids:
            classes = self._source_id_table()[classes]
        self._save_png(os.path.join("raw_semantic", name), _as_bytes(classes, "class", name))
        path = os.path.join("raw_panoptic", name)
        if self.raw_format == "two_channel_numpy_array":
            with self._open(f"{path}.npy") as file:
                np.save(file, np.stack([classes, instances, np.zeros_like(classes)], -1).astype(np.int32))
        elif self.raw_format == "two_channel_png":
            self._save_png(path, _channels(name, classes, instances, np.zeros_like(instances)))
        else:
            self._save_png(path, _channels(name, classes, instances // 256, instances % 256))

    def _source_id_table(self) -> np.ndarray:
        largest = max(self.descriptor.num_classes - 1, self.descriptor.ignore_label)
        table = np.zeros(largest + 1, np.int32)
        for segment_class in self.descriptor.classes:
            table[segment_class.id] = segment_class.source_id
        return table

    def _save_png(self, name: str, pixels: np.ndarray) -> None:
        with self._open(f"{name}.png") as file:
            Image.fromarray(pixels).save(file, "PNG")

    def _open(self, name: str):
        path = os.path.join(self.folder, name)
        tf.io.gfile.makedirs(os.path.dirname(path))
        return tf.io.gfile.GFile(path, "wb")


def _channels(name: str, classes: np.ndarray, *instances: np.ndarray) -> np.ndarray:
    return np.stack([_as_bytes(classes, "class", name), *(_as_bytes(i, "instance", name) for i in instances)], -1)


def _as_bytes(values: np.ndarray, what: str, name: str) -> np.ndarray:
    if values.max(initial=0) > 255:
        raise DataError(
            f"{name}: {what} {values.max()} does not fit one 8-bit channel;"
            ' use evaluator_options.raw_panoptic_format: "two_channel_numpy_array"'
        )
    return values.astype(np.uint8)


def prediction_files(
    options: evaluator_pb2.EvaluatorOptions, descriptor: DatasetDescriptor, run_folder: str, chief: bool = True
) -> PredictionFiles | None:
    """The files `evaluator_options` ask for, in `override_save_dir` or `<run_folder>/vis`; None where it asks for none.

    Of several processes the `chief` writes the pictures, which are numbered; raw files are named after their images,
    and each process writes those of its own.

    Raises:
        ConfigError: an unknown raw_panoptic_format.
    """
    if not options.save_predictions and not options.save_raw_predictions:
        return None
    return PredictionFiles(
        folder=options.override_save_dir or os.path.join(run_folder, "vis"),
        descriptor=descriptor,
        pictures=options.num_vis_samples if options.save_predictions and chief else 0,
        raw_format=options.raw_panoptic_format if options.save_raw_predictions else None,
        source_ids=options.convert_raw_to_eval_ids,
    )
