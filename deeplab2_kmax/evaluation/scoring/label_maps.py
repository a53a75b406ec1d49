"""Label maps without a JSON of their segments: the pixels say class and instance.

- DeepLab2's raw formats, which evaluation writes below `raw_panoptic`, see `PredictionFiles`;
- what `deeplab2-kmax predict` writes, `<name>_panoptic.png`, whose classes `<name>_segments.json` numbers;
- Cityscapes' `*_gtFine_instanceIds.png`.

All become ids of class * `DIVISOR` + instance.
"""

from __future__ import annotations

import dataclasses
import io
import os
import posixpath
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.datasets.segment_colors import colors_to_ids
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.panoptic_quality import VOID, Segments
from deeplab2_kmax.names import image_key
from deeplab2_kmax.pictures.label_pngs import decode_colors, decode_numbers
from deeplab2_kmax.wording import counted, quoted

# More than any instance id: those of files have 16 bits, and of label maps less than the largest label divisor.
DIVISOR = 2**31
# What `predict` adds to the name of a picture.
PANOPTIC_ENDING, SEGMENTS_ENDING = "_panoptic.png", "_segments.json"
# Where evaluation writes raw predictions below the folder that it writes to.
RAW_PANOPTIC = "raw_panoptic"
# Of Cityscapes' instance ids, those from here on are class * 1000 + number.
_CITYSCAPES_DIVISOR = 1000


@dataclasses.dataclass(frozen=True)
class Classes:
    """What the class ids of label maps mean.

    Attributes:
        index: the index of each class id among the classes; `VOID` for the ids of void.
        is_thing: bool [C], of each class.
    """

    index: Mapping[int, int]
    is_thing: np.ndarray

    def segments(self, ids: np.ndarray, areas: np.ndarray, where: str, unknown_is_void: bool = False) -> Segments:
        """The segments of ids class * `DIVISOR` + instance, int64 [S], with `areas` float64 [S] pixels.

        Things with instance 0 are crowds, which counts for a truth only.

        Raises:
            DataError: an id has a class that is not known, and `unknown_is_void` is False.
        """
        class_ids, instances = np.divmod(ids, DIVISOR)
        classes = np.full(len(ids), VOID)
        for place, class_id in enumerate(class_ids.tolist()):
            if class_id in self.index:
                classes[place] = self.index[class_id]
            elif not unknown_is_void:
                raise DataError(
                    f"{where}: expected a class of the truth, got class {class_id} with"
                    f" {counted(int(areas[place]), 'pixel')}; see whether the maps hold the ids of the data set's own"
                    " annotation files, which is usual, or training ids (--training_ids), and whether --dataset fits"
                )
        return Segments(classes, (classes != VOID) & self.is_thing[classes] & (instances == 0), areas)


@dataclasses.dataclass(frozen=True)
class MapFile:
    """A label map in a file; see `TrueImage` and `PredictedImage`.

    Attributes:
        name: what results call the image.
        path: of the file.
        decode: `f(content, path)` -> int64 [H, W] ids.
        classes: what its class ids mean.
        unknown_is_void: whether pixels of other classes are void; else they are an error.
    """

    name: str
    path: str
    decode: Callable[[bytes, str], np.ndarray]
    classes: Classes
    unknown_is_void: bool = False

    def read(self) -> np.ndarray:
        return self.decode(read_file(self.path), self.path)


class TrueMapFile(MapFile):
    """A label map of the truth."""

    def segments(self, ids: np.ndarray, overlaps: np.ndarray) -> tuple[Segments, np.ndarray]:
        return self.classes.segments(ids, overlaps.sum(1), self.path, self.unknown_is_void), overlaps


class PredictedMapFile(MapFile):
    """A predicted label map."""

    def segments(self, ids: np.ndarray, areas: np.ndarray) -> Segments:
        return self.classes.segments(ids, areas, self.path)


@dataclasses.dataclass(frozen=True)
class PredictOutput:
    """A prediction of `deeplab2-kmax predict`; see `PredictedImage`.

    Attributes:
        path: of the panoptic PNG; the JSON lies beside it.
        classes: what the ids mean that the classes have in the data set's own annotation files.
        dataset: name or descriptor file of the data set; None: that of the JSON.
    """

    path: str
    classes: Classes
    dataset: str | None

    def read(self) -> np.ndarray:
        return read_colors(self.path)

    def segments(self, ids: np.ndarray, areas: np.ndarray) -> Segments:
        source_ids = SegmentTable.beside(self.path).source_ids(self.dataset)
        classes = np.full(len(ids), VOID)
        for place, segment_id in enumerate(ids.tolist()):
            if segment_id not in source_ids:
                raise DataError(
                    f"{self.path}: expected the segments of the JSON beside it, got"
                    f" {counted(int(areas[place]), 'pixel')} of segment {segment_id}, which is not there; predict the"
                    " picture again"
                )
            source_id = source_ids[segment_id]
            if source_id is None:
                continue
            if self.classes.index.get(source_id, VOID) == VOID:
                raise DataError(
                    f"{self.path}: expected classes of the truth, got class {source_id} of segment {segment_id}, which"
                    " it does not have; score against the truth of the same data set"
                )
            classes[place] = self.classes.index[source_id]
        return Segments(classes, np.zeros(len(ids), bool), areas)


@dataclasses.dataclass(frozen=True)
class SegmentTable:
    """The JSON that `deeplab2-kmax predict` writes beside a panoptic PNG.

    Attributes:
        path: of the JSON.
        dataset: the name of the data set.
        void: the id of void.
        classes: the class of each segment, by training ids.
        scores: the confidence of each segment, 0..1.
        names: the name of each class that occurs, by training ids; empty where the JSON does not say them.
    """

    path: str
    dataset: str
    void: int
    classes: Mapping[int, int]
    scores: Mapping[int, float]
    names: Mapping[int, str]

    @classmethod
    def beside(cls, png_path: str) -> SegmentTable:
        """Reads the JSON of a panoptic PNG; raises DataError."""
        path = f"{png_path[: -len(PANOPTIC_ENDING)]}{SEGMENTS_ENDING}"
        try:
            table = files.read_json(path)
            classes = {int(segment["id"]): int(segment["class_id"]) for segment in table["segments"]}
            scores = {int(segment["id"]): float(segment.get("score", 1)) for segment in table["segments"]}
            names = {int(s["class_id"]): str(s["class_name"]) for s in table["segments"] if "class_name" in s}
            read = cls(path, str(table["dataset"]), int(table["void_id"]), classes, scores, names)
        except OSError as error:
            raise DataError(f"{path}: cannot read the segments of {png_path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}: expected the segments of a picture as `deeplab2-kmax predict` writes them, got another or a"
                " broken JSON; predict the picture again"
            ) from error
        for segment_id, score in scores.items():
            # NaN is within nothing.
            if not 0 <= score <= 1:
                raise DataError(
                    f"{path}: expected the score of segment {segment_id} within 0 .. 1, got {score}; predict the"
                    " picture again"
                )
        return read

    def source_ids(self, dataset: str | None) -> dict[int, int | None]:
        """The class of each id that the PNG may have, by the ids of the data set's own files; None for void.

        Args:
            dataset: name or descriptor file of the data set; None: that of the JSON.
        """
        descriptor = load_dataset(dataset or self.dataset)
        self._require_classes_of(descriptor)
        of_class = {c.id: c.source_id for c in descriptor.classes}
        found: dict[int, int | None] = {self.void: None}
        for segment_id, class_id in self.classes.items():
            if class_id not in of_class:
                raise DataError(
                    f"{self.path}: expected classes of {dataset or self.dataset}, got class {class_id}; name the data"
                    " set of the prediction by --dataset"
                )
            found[segment_id] = of_class[class_id]
        return found

    def _require_classes_of(self, descriptor: DatasetDescriptor) -> None:
        """Refuses another data set than that of the prediction, whose numbers would be taken for other classes.

        A data set of another name that calls these classes the same is as good.
        """
        known = {c.id: c.name for c in descriptor.classes}
        for class_id, name in self.names.items():
            if known.get(class_id, name) != name:
                raise DataError(
                    f"{self.path}: expected classes of {descriptor.name}, where class {class_id} is"
                    f" {quoted(known[class_id])}; got {quoted(name)} of {self.dataset}. Name the data set of the"
                    " prediction by --dataset, or its descriptor file"
                )
        if self.dataset != descriptor.name and self.classes.keys() and not self.names:
            raise DataError(
                f"{self.path}: expected a prediction with the classes of {descriptor.name}, got one of {self.dataset};"
                " name its data set by --dataset"
            )


def read_file(path: str) -> bytes:
    """The content of a label file; raises DataError."""
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the label map: {error.strerror}") from error


def read_colors(path: str) -> np.ndarray:
    """The ids of a PNG that holds them as R + 256 G + 65536 B, int32 [H, W]."""
    return colors_to_ids(decode_colors(read_file(path), path))


def two_channel_png(content: bytes, path: str) -> np.ndarray:
    """DeepLab2's `two_channel_png`: red is the class, green the instance."""
    red, green, blue = _channels(content, path)
    if blue.any():
        raise DataError(
            f"{path}: expected 0 in blue, as in two_channel_png, got {blue.max()}; if the PNGs have the instance in"
            " green and blue, say so by --raw_format=three_channel_png"
        )
    return red * DIVISOR + green


def three_channel_png(content: bytes, path: str) -> np.ndarray:
    """DeepLab2's `three_channel_png`: red is the class, 256 * green + blue the instance."""
    red, green, blue = _channels(content, path)
    return red * DIVISOR + 256 * green + blue


def two_channel_numpy_array(content: bytes, path: str) -> np.ndarray:
    """DeepLab2's `two_channel_numpy_array`: integer [H, W, 3], or [H, W, 2]; class, instance, and nothing."""
    try:
        channels = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: expected an .npy of numbers, got a broken or another file; write it again") from error
    if channels.ndim != 3 or channels.shape[2] not in (2, 3) or not np.issubdtype(channels.dtype, np.integer):
        raise DataError(
            f"{path}: expected whole numbers [height, width, 3], got {channels.dtype} {list(channels.shape)}; channel 0"
            " is the class and channel 1 the instance"
        )
    classes, instances = channels[..., 0].astype(np.int64), channels[..., 1].astype(np.int64)
    if instances.size and not 0 <= instances.min() <= instances.max() < DIVISOR:
        raise DataError(f"{path}: expected instances from 0 to {DIVISOR - 1:,}, got {instances.min():,} or more")
    return classes * DIVISOR + instances


def instance_ids_png(content: bytes, path: str) -> np.ndarray:
    """Cityscapes' `instanceIds`: class * 1000 + number, or the class alone for stuff and for groups of things."""
    ids = decode_numbers(content, path).astype(np.int64)
    classes, instances = np.divmod(ids, _CITYSCAPES_DIVISOR)
    # A first instance has number 0, and is told from a group, which is a crowd, by the number's being there at all.
    return np.where(ids < _CITYSCAPES_DIVISOR, ids * DIVISOR, classes * DIVISOR + instances + 1)


DECODERS = {
    "two_channel_png": two_channel_png,
    "three_channel_png": three_channel_png,
    "two_channel_numpy_array": two_channel_numpy_array,
}


def _channels(content: bytes, path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    colors = decode_colors(content, path).astype(np.int64)
    return colors[..., 0], colors[..., 1], colors[..., 2]


class MapFolder:
    """The label files of a folder and of those below it, found by the names of images.

    Args:
        folder: local or remote.
        endings: of the files, such as ".png".

    Raises:
        DataError: the folder is missing or has no such file.
    """

    def __init__(self, folder: files.StrPath, endings: Iterable[str]) -> None:
        self.folder = os.fspath(folder)
        endings = tuple(endings)
        self.paths: dict[str, str] = {}
        try:
            names = sorted(_names_below(self.folder))
        except OSError as error:
            raise DataError(f"{folder}: cannot read the folder of label maps: {error.strerror}") from error
        for name in names:
            for ending in endings:
                if name.endswith(ending):
                    key, path = image_key(name[: -len(ending)]), files.join(self.folder, name)
                    if key in self.paths:
                        raise DataError(
                            f"{folder}: expected one label map of image {quoted(key)}, got {self.paths[key]} and"
                            f" {path}; take one of them out"
                        )
                    self.paths[key] = path
                    break
        if not self.paths:
            raise DataError(f"{folder}: expected files that end in {' or '.join(endings)}, got none; name their folder")
        self._by_last_part: dict[str, list[str]] = {}
        for key in self.paths:
            self._by_last_part.setdefault(posixpath.basename(key), []).append(key)

    def find(self, name: str, truth: str) -> str:
        """The path of an image's map, by its name with its folders or, where that is unambiguous, without them.

        Args:
            name: of the image, without the ending of a file.
            truth: where the truth of the image is, for messages.

        Raises:
            DataError: there is none, or more than one.
        """
        key = image_key(name)
        if key in self.paths:
            return self.paths[key]
        found = self._by_last_part.get(posixpath.basename(key), [])
        if len(found) != 1:
            got = "none" if not found else f"{' and '.join(found[:2])}"
            raise DataError(
                f"{self.folder}: expected a label map of image {quoted(key)} of {truth}, got {got}; files are named"
                " after the images of the truth. Add it, or take the image out of the truth"
            )
        return self.paths[found[0]]


def _names_below(folder: str, prefix: str = "") -> Iterable[str]:
    """The files below a folder, as paths from there."""
    for name in files.list_folder(folder):
        path = files.join(folder, name)
        # A look at each file takes longer than all else here; files of these endings are no folders.
        if not name.endswith((".png", ".npy", ".json", ".txt", ".jpg")) and files.is_folder(path):
            yield from _names_below(path, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}"


def has_file(folder: str, ending: str) -> bool:
    """Whether there is a file of this ending in a folder or, as in gtFine, in one of those below it."""
    try:
        names = files.list_folder(folder)
        below = [files.join(folder, name) for name in names if not os.path.splitext(name)[1]]
        return any(name.endswith(ending) for name in names) or any(
            name.endswith(ending) for each in below if files.is_folder(each) for name in files.list_folder(each)
        )
    except OSError as error:
        raise DataError(f"{folder}: cannot read the folder: {error.strerror}") from error


def raw_folder(path: str, raw_format: str | None) -> tuple[MapFolder, Callable[[bytes, str], np.ndarray]]:
    """The raw maps of a folder, or of the one in it that evaluation writes them to, and how to read them.

    Args:
        path: of the folder.
        raw_format: one of `DECODERS`; None: .npy where there are such files, else two_channel_png.
    """
    if files.is_folder(files.join(path, RAW_PANOPTIC)):
        path = files.join(path, RAW_PANOPTIC)
    chosen = raw_format or ("two_channel_numpy_array" if has_file(path, ".npy") else "two_channel_png")
    return MapFolder(path, [".npy" if chosen == "two_channel_numpy_array" else ".png"]), DECODERS[chosen]
