"""Predictions of an evaluation as files: pictures for people, and raw label maps for other programs."""

from __future__ import annotations

import collections
import dataclasses
import io
from collections.abc import Iterable

import numpy as np
from absl import logging
from PIL import Image

from deeplab2_kmax import files
from deeplab2_kmax.config.problems import choice_problems, refuse
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.names import checksum, result_name
from deeplab2_kmax.protos import evaluator_pb2
from deeplab2_kmax.visualization import display_scale, overlay
from deeplab2_kmax.wording import counted, quoted

RAW_FORMATS = ("two_channel_png", "three_channel_png", "two_channel_numpy_array")
_LARGEST_BYTE = 255


@dataclasses.dataclass
class PredictionFiles:
    """Writes predictions below one folder, under DeepLab2's file names.

    `000000_image.png`, `000000_panoptic_prediction.png` and `000000_panoptic_label.png` show the first images (small
    ones enlarged, so that class names can be read), `000000_semantic_prediction.png` and `000000_semantic_label.png`
    their classes by color, void black, and `000000_semantic_error.png` in white where a labelled pixel has another
    class than predicted. The latter three are as large as the image. `raw_panoptic/<image>` and
    `raw_semantic/<image>.png` hold the label maps of all images.

    Where several images have one name, or names that lead to one file ("a" and "a.png"), the later ones get a checksum
    of their name behind it, and a number if it is the very same name. Of several processes each sees only its own
    images: a name that two of them have is written twice. `check-dataset` finds all such names beforehand.

    Attributes:
        folder: where to write, possibly remote; made when the first file is written.
        descriptor: the data set.
        pictures: how many images to show.
        raw_format: one of `RAW_FORMATS`, or None for no raw files. In "two_channel_png" red is the class and green the
            instance; in "three_channel_png" the instance is 256 * green + blue; "two_channel_numpy_array" is int32
            [H, W, 3] with class and instance in its first two channels and zeros in the third.
        source_ids: whether to write classes by the ids of the data set's own annotation files instead of training ids.
            Void is 0 then; if that is a class there, as in ADE20K, it is 255, or the largest number below that no class
            has.
    """

    folder: str
    descriptor: DatasetDescriptor
    pictures: int = 0
    raw_format: str | None = None
    source_ids: bool = True

    def __post_init__(self) -> None:
        if self.raw_format is not None:
            refuse(choice_problems("evaluator_options.raw_panoptic_format", self.raw_format, RAW_FORMATS))

        self._warned = False

    def begin(self) -> None:
        """Starts an evaluation: the next image is number 0, and all names are free."""
        self._count = 0
        self._taken: set[str] = set()
        self._uses: collections.Counter[str] = collections.Counter()
        self._renamed = 0
        self._example = ""

    def end(self) -> None:
        """Ends an evaluation; warns of images whose files got other names than theirs, at the first evaluation only."""
        if self._renamed and not self._warned:
            logging.warning(
                "%s: %s would have replaced the raw predictions of an earlier image of the same name, such as %s;"
                " a checksum is added. Give images names that differ without their endings; check-dataset lists them",
                self.folder, counted(self._renamed, "image"), self._example,
            )  # fmt: skip
            self._warned = True

    def wants_picture(self) -> bool:
        """Whether the next image is one to show."""
        return self._count < self.pictures

    def write(
        self,
        name: str,
        prediction: np.ndarray,
        truth: np.ndarray | None,
        image: np.ndarray | None,
        semantic: np.ndarray | None = None,
        semantic_truth: np.ndarray | None = None,
    ) -> None:
        """Writes the files of one image.

        Args:
            name: its file name, possibly below folders; see `result_name`.
            prediction: [H, W] panoptic ids at the image's original size.
            truth: [H, W] panoptic ids of the labels, or None.
            image: [h, w, 3] RGB 0..255 of any size, needed if `wants_picture()`; else None.
            semantic: [H, W] class ids that are predicted, or None: there are no pictures of them.
            semantic_truth: [H, W] class ids of the labels, or None.

        Raises:
            DataError: an id does not fit the channels of the raw format.
            OSError: a file cannot be written.
        """
        if self.wants_picture() and image is not None:
            self._write_pictures(prediction, truth, image)
            self._write_semantic_pictures(semantic, semantic_truth)
        if self.raw_format is not None:
            self._write_raw(self._free_name(name), prediction)
        self._count += 1

    def _free_name(self, name: str) -> str:
        """The `result_name` of an image, changed where an earlier image has taken it."""
        free = plain = result_name(name)
        # Of a name that comes a thousand times, the first numbers are known to be taken.
        number = self._uses[name]
        while free in self._taken:
            number += 1
            free = f"{plain}-{checksum(name)}" + (f"_{number}" if number > 1 else "")
        self._uses[name] += 1
        self._taken.add(free)
        if free != plain:
            self._renamed += 1
            self._example = self._example or f"{quoted(name)}, whose files are {quoted(free)} now"
        return free

    def _write_pictures(self, prediction: np.ndarray, truth: np.ndarray | None, image: np.ndarray) -> None:
        height, width = prediction.shape
        pixels = Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))
        # The network's input size may differ from the image's own size, which the maps have.
        picture = np.asarray(pixels.resize((width, height), Image.Resampling.BILINEAR))
        self._save_png(f"{self._count:06d}_image", picture)
        maps = {"panoptic_prediction": prediction, "panoptic_label": truth}
        for kind, panoptic in maps.items():
            if panoptic is not None:
                drawn = overlay(picture, panoptic, self.descriptor, scale=display_scale(height, width))
                self._save_png(f"{self._count:06d}_{kind}", drawn)

    def _write_semantic_pictures(self, prediction: np.ndarray | None, truth: np.ndarray | None) -> None:
        largest = max(self.descriptor.num_classes - 1, self.descriptor.ignore_label)
        colors = np.zeros((largest + 1, 3), np.uint8)
        for segment_class in self.descriptor.classes:
            colors[segment_class.id] = segment_class.color
        for kind, classes in (("prediction", prediction), ("label", truth)):
            if classes is not None:
                self._save_png(f"{self._count:06d}_semantic_{kind}", colors[classes])
        if prediction is not None and truth is not None:
            wrong = (prediction != truth) & (truth != self.descriptor.ignore_label)
            self._save_png(f"{self._count:06d}_semantic_error", np.where(wrong, 255, 0).astype(np.uint8))

    def _write_raw(self, name: str, prediction: np.ndarray) -> None:
        classes, instances = np.divmod(prediction, self.descriptor.label_divisor)
        if self.source_ids:
            classes = self._source_id_table()[classes]
        # As in DeepLab2, evaluation writes semantic maps along with the panoptic ones.
        self._save_png(files.join("raw_semantic", name), _as_bytes(classes, "class", name))
        path = files.join("raw_panoptic", name)
        if self.raw_format == "two_channel_numpy_array":
            channels = np.zeros((*prediction.shape, 3), np.int32)
            channels[..., 0], channels[..., 1] = classes, instances
            # Into memory first: of a full disk, numpy tells only how many numbers it has written.
            encoded = io.BytesIO()
            np.save(encoded, channels)
            files.write_bytes(files.join(self.folder, f"{path}.npy"), encoded.getvalue())
        elif self.raw_format == "two_channel_png":
            self._save_png(path, _channels(name, classes, instances, np.zeros_like(instances)))
        else:
            self._save_png(path, _channels(name, classes, instances // 256, instances % 256))

    def _source_id_table(self) -> np.ndarray:
        """Source id of each class id, int32; that of void for the ignore label and for ids without a class."""
        # Void need not be a class id below num_classes: Cityscapes has 255.
        largest = max(self.descriptor.num_classes - 1, self.descriptor.ignore_label)
        void = source_id_of_void(segment_class.source_id for segment_class in self.descriptor.classes)
        table = np.full(largest + 1, void, np.int32)
        for segment_class in self.descriptor.classes:
            table[segment_class.id] = segment_class.source_id
        return table

    def _save_png(self, name: str, pixels: np.ndarray) -> None:
        with files.atomic_file(files.join(self.folder, f"{name}.png")) as file:
            Image.fromarray(pixels).save(file, "PNG")


def source_id_of_void(source_ids: Iterable[int]) -> int:
    """What void is in maps of source ids: a number that no class has, so that it can be told from all of them."""
    taken = set(source_ids)
    usual = (0, *range(_LARGEST_BYTE, 0, -1))
    return next((number for number in usual if number not in taken), max(taken) + 1)


def _channels(name: str, classes: np.ndarray, *instances: np.ndarray) -> np.ndarray:
    """Class and instance maps [H, W] as the channels of one picture, uint8 [H, W, 3]."""
    return np.stack([_as_bytes(classes, "class", name), *(_as_bytes(i, "instance", name) for i in instances)], -1)


def _as_bytes(values: np.ndarray, what: str, name: str) -> np.ndarray:
    """The values as uint8; a DataError that says `what` of image `name` is too large where they do not fit."""
    if values.max(initial=0) > _LARGEST_BYTE:
        raise DataError(
            f"{name}: expected ids up to 255, which fit an 8-bit channel; got {what} {values.max()};"
            ' use evaluator_options.raw_panoptic_format: "two_channel_numpy_array"'
        )
    return values.astype(np.uint8)


def build_prediction_files(
    options: evaluator_pb2.EvaluatorOptions, descriptor: DatasetDescriptor, run_folder: str, chief: bool = True
) -> PredictionFiles | None:
    """The writer of the files that a config asks for.

    Of several processes only the chief writes pictures: they are numbered, and each process counts its own images. Raw
    files are named after their images, so every process writes those of its own.

    Args:
        options: `evaluator_options` of the config.
        descriptor: the data set.
        run_folder: files go to `<run_folder>/vis` unless the options name another folder in `override_save_dir`.
        chief: whether this process is the chief.

    Returns:
        The writer; None where the options ask for no files.

    Raises:
        ConfigError: an unknown raw_panoptic_format.
    """
    if not options.save_predictions and not options.save_raw_predictions:
        return None
    return PredictionFiles(
        folder=options.override_save_dir or files.join(run_folder, "vis"),
        descriptor=descriptor,
        pictures=options.num_vis_samples if options.save_predictions and chief else 0,
        raw_format=options.raw_panoptic_format if options.save_raw_predictions else None,
        source_ids=options.convert_raw_to_eval_ids,
    )
