"""Scores predictions in files against a truth in files: recognizes both, and pairs them by image."""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Callable, Sequence

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.evaluation import image_pairs
from deeplab2_kmax.evaluation.coco_format import (
    CocoPredictedImage,
    CocoTruth,
    NamedClass,
    read_coco_annotations,
    read_coco_prediction,
    read_coco_truth,
    warn_of_other_classes,
)
from deeplab2_kmax.evaluation.image_pairs import Pair, PredictedImage, TrueImage
from deeplab2_kmax.evaluation.panoptic_quality import VOID, Categories
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.evaluation.prediction_files import source_id_of_void
from deeplab2_kmax.evaluation.scoring import rust_engine
from deeplab2_kmax.evaluation.scoring.label_maps import (
    DECODERS,
    PANOPTIC_ENDING,
    RAW_PANOPTIC,
    SEGMENTS_ENDING,
    Classes,
    MapFolder,
    PredictedMapFile,
    PredictOutput,
    SegmentTable,
    TrueMapFile,
    has_file,
    instance_ids_png,
    raw_folder,
)
from deeplab2_kmax.evaluation.scoring.records import record_labels
from deeplab2_kmax.names import image_key, without_ending
from deeplab2_kmax.wording import quoted

FORMATS = ("coco", "cityscapes", "raw", "records")
RAW_FORMATS = tuple(DECODERS)
_INSTANCE_IDS = "_gtFine_instanceIds.png"
_CITYSCAPES = "cityscapes_panoptic"
_RECORDS = ".tfrecord"
# Where evaluation writes raw maps below the folder of a run.
_PICTURES = "vis"


@dataclasses.dataclass(frozen=True)
class Options:
    """How to read files that do not say it themselves.

    Attributes:
        format: of the truth, one of `FORMATS`; None: recognized.
        truth_folder: PNGs of a truth in JSON; None: the folder beside it, of the same name.
        prediction_folder: PNGs of a prediction in JSON; None: likewise.
        dataset: name or descriptor file of the data set; needed for records and raw maps as truth.
        raw_format: of raw maps, one of DeepLab2's three; None: .npy where there are such files, else two_channel_png.
        training_ids: whether raw maps hold the class ids that training uses, as evaluation writes them with
            `convert_raw_to_eval_ids: false`; else those of the data set's own annotation files.
    """

    format: str | None = None
    truth_folder: str | None = None
    prediction_folder: str | None = None
    dataset: str | None = None
    raw_format: str | None = None
    training_ids: bool = False


@dataclasses.dataclass(frozen=True)
class _Truth:
    """What predictions are compared with.

    Attributes:
        categories: its classes.
        images: its label maps.
        source_ids: what the class ids of the data set's own annotation files mean.
        training_ids: what those of training mean; None: not known, as no data set is given.
        coco: for a truth in COCO's format; else None.
    """

    categories: Categories
    images: Sequence[TrueImage]
    source_ids: Classes
    training_ids: Classes | None
    coco: CocoTruth | None = None

    def classes_of_raw_maps(self, options: Options) -> Classes:
        if not options.training_ids:
            return self.source_ids
        if self.training_ids is None:
            raise UserError("--training_ids: expected the data set whose ids they are, got none; name it by --dataset")
        return self.training_ids


@dataclasses.dataclass(frozen=True)
class FilePairs:
    """Truth and prediction of all images.

    Attributes:
        categories: the classes.
        pairs: in the order of the truth.
        left_out: how many images have a prediction and no truth.
    """

    categories: Categories
    pairs: Sequence[Pair]
    left_out: int


def read_pairs(truth: str, prediction: str, options: Options = Options()) -> FilePairs:  # noqa: B008, as it is frozen
    """Finds the prediction of each image; arguments and errors are those of `score_files`."""
    found = _read_truth(truth, options)
    images, predicted = _predictions(prediction, found, options)
    return FilePairs(found.categories, list(map(Pair, found.images, images)), max(0, predicted - len(images)))


def score_files(
    truth: str,
    prediction: str,
    options: Options = Options(),  # noqa: B008, as it is frozen
    processes: int | None = None,
    on_start: Callable[[int], object] = lambda images: None,
    on_progress: Callable[[int], object] = lambda images: None,
) -> ImageFigures:
    """Panoptic quality of predictions, image by image.

    Args:
        truth: COCO's panoptic annotations (.json, also Cityscapes'), a folder of Cityscapes' gtFine, a folder of raw
            maps, or a pattern of TFRecord files.
        prediction: for all images of the truth: annotations in COCO's format, a folder that `deeplab2-kmax predict` has
            written, or a folder of raw maps. All paths may be remote.
        options: how to read them.
        processes: how many processes to use; None: one for each core. The result does not depend on it.
        on_start: called with the number of images, before the first is scored.
        on_progress: called with a number of images that are done now.

    Raises:
        DataError: a file is missing or broken, or a prediction is not one of the truth's images; see docs/scoring.md.
        UserError: the options do not fit the files.
    """
    return score_pairs(read_pairs(truth, prediction, options), processes, on_start, on_progress)


def score_pairs(
    found: FilePairs,
    processes: int | None = None,
    on_start: Callable[[int], object] = lambda images: None,
    on_progress: Callable[[int], object] = lambda images: None,
) -> ImageFigures:
    """`score_files`, for pairs that have been read."""
    pairs = found.pairs
    figures = ImageFigures(found.categories.name, found.categories.classes)
    on_start(len(pairs))
    score = rust_engine.score_pairs if rust_engine.can_score(pairs) else image_pairs.score_pairs
    score(figures, pairs, processes, on_progress)
    return figures


def _read_truth(path: str, options: Options) -> _Truth:
    _require_plain_json("--truth", path)
    kind = options.format or _kind_of_truth(path)
    if kind in ("coco", "cityscapes") and path.endswith(".json"):
        descriptor = _descriptor(options, _CITYSCAPES if kind == "cityscapes" else None)
        return _coco_truth(path, options.truth_folder, descriptor)
    if kind == "coco":
        raise UserError(f"--truth: expected COCO's panoptic annotations, a .json, got {quoted(path)}")
    if options.truth_folder:
        raise UserError("--truth_folder: expected a truth in JSON beside it, whose PNGs it holds; leave it out")
    descriptor = _descriptor(options, _CITYSCAPES if kind == "cityscapes" else None)
    if descriptor is None:
        raise UserError(
            f"--truth: expected the data set of {quoted(path)}, as class ids alone do not say what are things; name it"
            " by --dataset, or its descriptor file"
        )
    truth = _Truth(Categories(descriptor.name, descriptor.classes), (), *_classes_of(descriptor))
    if kind == "records":
        assert truth.training_ids is not None
        images: Sequence[TrueImage] = list(record_labels(path.split(","), descriptor, truth.training_ids))
    elif kind == "cityscapes":
        folder = MapFolder(path, [_INSTANCE_IDS])
        images = [
            TrueMapFile(posixpath.basename(name), file, instance_ids_png, truth.source_ids, unknown_is_void=True)
            for name, file in folder.paths.items()
        ]
    else:
        folder, decode = raw_folder(path, options.raw_format)
        classes = truth.classes_of_raw_maps(options)
        images = [TrueMapFile(name, file, decode, classes) for name, file in folder.paths.items()]
    return dataclasses.replace(truth, images=images)


def _require_plain_json(flag: str, path: str) -> None:
    """Raises UserError for a JSON under a name that would be taken for that of a folder."""
    small = path.lower()
    if small.endswith(".json.gz") or (small.endswith(".json") and not path.endswith(".json")):
        what = "an unpacked JSON" if small.endswith(".gz") else "a name that ends in .json, in small letters"
        raise UserError(f"{flag}: expected {what}, got {quoted(path)}; unpack or rename it")


def _kind_of_truth(path: str) -> str:
    if path.endswith(".json"):
        return "coco"
    if any(letter in path for letter in "*?[") or path.endswith(_RECORDS):
        return "records"
    if has_file(path, _RECORDS):
        raise UserError(
            f"--truth: expected a pattern of TFRecord files, got their folder {quoted(path)}; name a pattern such as"
            f" {quoted(files.join(path, f'val-*{_RECORDS}'))}"
        )
    return "cityscapes" if has_file(path, _INSTANCE_IDS) else "raw"


def _descriptor(options: Options, usual: str | None) -> DatasetDescriptor | None:
    name = options.dataset or usual
    return load_dataset(name) if name else None


def _classes_of(descriptor: DatasetDescriptor) -> tuple[Classes, Classes]:
    """What the source ids and the training ids of a data set mean."""
    is_thing = np.array([c.is_thing for c in descriptor.classes])
    source_ids = {c.source_id: number for number, c in enumerate(descriptor.classes)}
    training_ids = {c.id: number for number, c in enumerate(descriptor.classes)}
    void = source_id_of_void(source_ids)
    return Classes({void: VOID, **source_ids}, is_thing), Classes(
        {descriptor.ignore_label: VOID, **training_ids}, is_thing
    )


def _coco_truth(path: str, folder: str | None, descriptor: DatasetDescriptor | None) -> _Truth:
    coco = read_coco_truth(path, folder)
    is_thing = np.array([c.is_thing for c in coco.categories.classes])
    ids = {c.id: number for number, c in enumerate(coco.categories.classes) if isinstance(c.id, int)}
    training_ids = None
    if descriptor is not None:
        known = {c.id: ids[c.source_id] for c in descriptor.classes if c.source_id in ids}
        training_ids = Classes({descriptor.ignore_label: VOID, **known}, is_thing)
    source_ids = Classes({source_id_of_void(ids): VOID, **ids}, is_thing)
    return _Truth(coco.categories, coco.images, source_ids, training_ids, coco)


def _predictions(path: str, truth: _Truth, options: Options) -> tuple[Sequence[PredictedImage], int]:
    """The prediction of each image of the truth, and the number of predictions, those of other images included."""
    _require_plain_json("--prediction", path)
    if path.endswith(".json"):
        if truth.coco is not None:
            read = read_coco_prediction(path, options.prediction_folder, truth.coco)
            return read.images, len(read.images) + read.left_out
        return _coco_by_name(path, options.prediction_folder, truth)
    if options.prediction_folder:
        raise UserError(
            "--prediction_folder: expected a prediction in JSON beside it, whose PNGs it holds; leave it out"
        )
    if has_file(path, SEGMENTS_ENDING):
        folder = MapFolder(path, [PANOPTIC_ENDING])
        first = SegmentTable.beside(next(iter(folder.paths.values())))
        _warn_of_other_dataset(path, truth, options.dataset or first.dataset)
        return [
            PredictOutput(folder.find(image.name, image.path), truth.source_ids, options.dataset)
            for image in truth.images
        ], len(folder.paths)
    if files.is_folder(files.join(path, _PICTURES, RAW_PANOPTIC)):
        raise UserError(
            f"--prediction: expected a folder of raw maps, got that of a run, {quoted(path)}; name the folder in it,"
            f" {quoted(files.join(path, _PICTURES))}"
        )
    folder, decode = raw_folder(path, options.raw_format)
    classes = truth.classes_of_raw_maps(options)
    if options.dataset:
        _warn_of_other_dataset(path, truth, options.dataset)
    return [
        PredictedMapFile(image.name, folder.find(image.name, image.path), decode, classes) for image in truth.images
    ], len(folder.paths)


def _warn_of_other_dataset(path: str, truth: _Truth, dataset: str) -> None:
    """Warns of a prediction whose data set gives the class ids of the truth other meanings."""
    descriptor = load_dataset(dataset)
    predicted = {c.source_id: NamedClass(c.name, c.is_thing) for c in descriptor.classes}
    warn_of_other_classes(truth.categories, predicted, f"{path} ({descriptor.name})")


def _coco_by_name(path: str, folder: str | None, truth: _Truth) -> tuple[list[CocoPredictedImage], int]:
    """Predictions in COCO's format of a truth that has no image ids: found by the names of their PNGs."""
    folder = folder or os.path.splitext(path)[0]
    index = {class_id: number for class_id, number in truth.source_ids.index.items() if number != VOID}
    by_name = {}
    annotations, classes = read_coco_annotations(path)
    warn_of_other_classes(truth.categories, classes, path)
    for name, text in annotations:
        by_name[image_key(without_ending(name))] = name, text
    found = []
    for image in truth.images:
        key = image_key(image.name)
        found_entry = by_name.get(key, by_name.get(posixpath.basename(key)))
        if found_entry is None:
            raise DataError(
                f"{path}: expected a prediction for each image of the truth, got none whose file_name is"
                f" {quoted(image.name + '.png')} ({image.path}); add it, or take the image out of the truth"
            )
        found.append(CocoPredictedImage(files.join(folder, found_entry[0]), found_entry[1], index))
    return found, len(by_name)
