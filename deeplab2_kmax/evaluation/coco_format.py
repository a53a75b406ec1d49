"""Panoptic quality of files in COCO's panoptic format: JSON annotations and a folder of PNGs that hold segment ids.

What counts where files are odd stands in docs/scoring.md, "Files in COCO's format". The truth is taken as panopticapi
takes it, whatever is wrong with it, since a figure is to be compared with others of the same truth. Of the prediction,
all that panopticapi refuses is refused.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.datasets import SegmentClass
from deeplab2_kmax.datasets.segment_colors import colors_to_ids
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.annotation_file import read_annotation_file
from deeplab2_kmax.evaluation.image_pairs import Pair, score_pairs
from deeplab2_kmax.evaluation.panoptic_quality import VOID, Categories, PanopticQualityResult, Segments
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.names import image_key, without_ending
from deeplab2_kmax.pictures.opening import open_whole
from deeplab2_kmax.wording import counted, quoted

_Kept = TypeVar("_Kept")
_PNG_VOID = 0
_LARGEST_ID = 2**24 - 1
# How Pillow gives away all four bytes of a pixel, by mode.
_FOUR_BYTES = {"RGB": "RGBX", "RGBA": "RGBA"}
# More than any picture has, and still a float64; JSON may hold whole numbers that are none.
_HUGE_AREA = 1e300
_ANNOTATION_KEYS = ("file_name", "image_id", "segments_info")


class NamedClass(NamedTuple):
    """What a prediction says of a class; None for what it does not say."""

    name: str | None
    is_thing: bool | None


class CocoTruth(NamedTuple):
    """A truth in COCO's format.

    Attributes:
        categories: its categories under their own ids.
        images: in the order of the file.
        image_ids: the id of each image.
    """

    categories: Categories
    images: tuple[CocoTrueImage, ...]
    image_ids: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class CocoTrueImage:
    """An image of the truth, see `TrueImage`: a PNG and its segments.

    Attributes:
        name: that of the PNG without ending, and without what Cityscapes adds to it.
        path: of the PNG.
        text: the annotation in JSON.
        index: the index of each category id among the classes.
    """

    name: str
    path: str
    text: str
    index: dict[Any, int]

    def listed(self) -> list[Any]:
        """`segments_info`."""
        return _segments_info(self.text)

    def read(self) -> np.ndarray:
        return read_panoptic_png(self.path)

    def segments(self, ids: np.ndarray, overlaps: np.ndarray) -> tuple[Segments, np.ndarray]:
        return _true_segments(ids, overlaps, self.listed(), self.index, self.path)


@dataclasses.dataclass(frozen=True)
class CocoPredictedImage:
    """A prediction, see `PredictedImage`; attributes as in `CocoTrueImage`."""

    path: str
    text: str
    index: dict[Any, int]

    def listed(self) -> list[Any]:
        """`segments_info`."""
        return _segments_info(self.text)

    def read(self) -> np.ndarray:
        return read_panoptic_png(self.path)

    def segments(self, ids: np.ndarray, areas: np.ndarray) -> Segments:
        return _predicted_segments(ids, areas, self.listed(), self.index, self.path)


class CocoPrediction(NamedTuple):
    """Predictions in COCO's format.

    Attributes:
        images: the prediction of each image of the truth.
        left_out: how many images have a prediction and no truth.
    """

    images: list[CocoPredictedImage]
    left_out: int


def read_coco_truth(json_path: files.StrPath, folder: files.StrPath | None = None) -> CocoTruth:
    """Reads the annotations of a truth.

    Args:
        json_path: annotations with "categories"; segments may be crowd. It and the folder may be remote.
        folder: its PNGs; None: the folder beside the JSON file, of the same name without ".json".

    Raises:
        DataError: the file is missing or broken, or has no image.
    """
    folder = folder or os.path.splitext(json_path)[0]

    def keep(number: int, annotation: Any, text: str) -> tuple[Any, str, str]:
        _require_keys(annotation, f"{json_path}: annotation {number}")
        return annotation["image_id"], annotation["file_name"], text

    annotations, others = _read_json(json_path, keep)
    if not annotations:
        raise DataError(
            f"{json_path}: expected annotations of at least one image, got none; export the truth again, with images"
        )
    categories = _categories(others.get("categories"), str(json_path))
    index: dict[Any, int] = {c.id: number for number, c in enumerate(categories.classes)}
    images = [
        CocoTrueImage(image_key(without_ending(name)), files.join(folder, name), text, index)
        for _, name, text in annotations
    ]
    return CocoTruth(categories, tuple(images), tuple(image_id for image_id, _, _ in annotations))


def read_coco_prediction(json_path: files.StrPath, folder: files.StrPath | None, truth: CocoTruth) -> CocoPrediction:
    """Reads the annotations of a prediction.

    Args:
        json_path: annotations for all images of the truth; those of other images are not looked at. It and the folder
            may be remote.
        folder: its PNGs; None: the folder beside the JSON file, of the same name without ".json".
        truth: what is predicted.

    Raises:
        DataError: the file is missing or broken, or lacks an image.
    """
    folder = folder or os.path.splitext(json_path)[0]

    def keep(number: int, annotation: Any, text: str) -> tuple[Any, str]:
        return _plain_value(annotation, "image_id", f"{json_path}: annotation {number}"), text

    annotations, others = _read_json(json_path, keep)
    warn_of_other_classes(truth.categories, named_classes(others.get("categories")), str(json_path))
    # Of several of one image the last counts, as in the official script.
    predicted = dict(annotations)
    index: dict[Any, int] = {c.id: number for number, c in enumerate(truth.categories.classes)}
    images = []
    for image_id in truth.image_ids:
        if isinstance(image_id, (list, dict)) or image_id not in predicted:
            raise DataError(
                f"{json_path}: expected a prediction for each image of {truth.categories.name} (add it, or take the"
                f" image out of the truth), got none for image {quoted(image_id)}"
            )
        annotation = json.loads(predicted[image_id])
        _require_keys(annotation, f"{json_path}: annotation of image {quoted(image_id)}")
        path = files.join(folder, annotation["file_name"])
        images.append(CocoPredictedImage(path, predicted[image_id], index))
    return CocoPrediction(images, len(predicted.keys() - set(truth.image_ids)))


def read_coco_annotations(json_path: files.StrPath) -> tuple[list[tuple[str, str]], dict[Any, NamedClass]]:
    """The name of the PNG and the text of each annotation of a file, and its classes; raises DataError."""

    def keep(number: int, annotation: Any, text: str) -> tuple[str, str]:
        _require_keys(annotation, f"{json_path}: annotation {number}")
        return annotation["file_name"], text

    annotations, others = _read_json(json_path, keep)
    return annotations, named_classes(others.get("categories"))


def named_classes(entries: Any) -> dict[Any, NamedClass]:
    """{id: what a file says of it} of "categories" in JSON, as far as they can be read; a prediction may lack them."""
    found = {}
    for category in entries if isinstance(entries, list) else ():
        if isinstance(category, dict) and not isinstance(category.get("id"), (list, dict)):
            is_thing = category["isthing"] == 1 if "isthing" in category else None
            found[category.get("id")] = NamedClass(category.get("name"), is_thing)
    return found


def warn_of_other_classes(truth: Categories, predicted: Mapping[Any, NamedClass], where: str) -> None:
    """Warns of predictions that call a class by another name than the truth does, or take things for stuff.

    Args:
        truth: its classes.
        predicted: {id in the data set's own files: what the prediction, or its data set, says of it}.
        where: the prediction, for messages.
    """
    known = {c.source_id: c for c in truth.classes if c.source_id in predicted}
    for class_id, c in known.items():
        name = predicted[class_id].name
        if name is not None and name != c.name:
            logging.warning(
                "%s: expected the categories of %s, where %s is %r; got %r for %s. Ids count, names do not: see whether"
                " the predictions are numbered as the truth is",
                where, truth.name, class_id, c.name, name, class_id,
            )  # fmt: skip
            break
    others = [c for i, c in known.items() if predicted[i].is_thing not in (None, c.is_thing)]
    if others:
        kinds = ("stuff", "a thing")
        logging.warning(
            "%s: expected things and stuff as in %s, where %r is %s; got %s (other kinds in all: %s of %s). What the"
            " truth says counts: see which of them is wrong",
            where, truth.name, others[0].name, kinds[others[0].is_thing], kinds[not others[0].is_thing],
            len(others), counted(len(known), "class", "classes"),
        )  # fmt: skip


def coco_panoptic_quality(
    truth_json: files.StrPath,
    prediction_json: files.StrPath,
    truth_folder: files.StrPath | None = None,
    prediction_folder: files.StrPath | None = None,
) -> PanopticQualityResult:
    """Panoptic quality of predictions in COCO's format, computed as the official script (panopticapi) does.

    `scoring.score.score_files` does the same in several processes, and tells the figures of each image.

    Args:
        truth_json: annotations with "categories"; segments may be crowd. This path and the others may be remote.
        prediction_json: annotations for all images of the truth; those of other images are not looked at.
        truth_folder: the PNGs of the truth; None: the folder beside its JSON file, of the same name without ".json".
        prediction_folder: the PNGs of the predictions; None: found in the same way.

    Returns:
        The quality; its descriptor holds the categories of the truth under their own ids.

    Raises:
        DataError: a file is missing or broken, the truth has no image, an image has no prediction, sizes differ, or in
            a prediction a segment of a PNG is not in its JSON or the other way round, or has a category that the truth
            does not have. The message names the file and the segment. What else is odd counts as docs/scoring.md says.
    """
    truth = read_coco_truth(truth_json, truth_folder)
    predictions = read_coco_prediction(prediction_json, prediction_folder, truth)
    figures = ImageFigures(truth.categories.name, truth.categories.classes)
    score_pairs(figures, list(map(Pair, truth.images, predictions.images)))
    return figures.result()


def read_panoptic_png(path: files.StrPath) -> np.ndarray:
    """Segment ids of a COCO panoptic PNG, int32 [H, W]; 0 is void.

    As in the official script, the pixels count as they are stored, without regard to EXIF orientation; of channels with
    16 bits the upper 8 count, and transparency does not.

    Raises:
        DataError: the file is missing, is no picture, or has no three channels.
    """
    try:
        content = files.read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the panoptic PNG: {error.strerror}") from error
    image = open_whole(content, os.fspath(path))
    if image.mode in _FOUR_BYTES:
        # Pillow keeps four bytes for each pixel: taken as one number, they need no arithmetic on three maps.
        packed = np.frombuffer(image.tobytes("raw", _FOUR_BYTES[image.mode]), "<i4")
        return (packed & _LARGEST_ID).reshape(image.height, image.width)
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] < 3:
        raise DataError(
            f"{path}: expected an RGB PNG of segment ids, got {image.format} of mode {image.mode}; save the ids as"
            " colors, R + 256 G + 256^2 B"
        )
    return colors_to_ids(pixels[..., :3])


def _read_json(path: files.StrPath, keep: Callable[[int, Any, str], _Kept]) -> tuple[list[_Kept], dict[str, Any]]:
    """What is kept of each annotation of a file, see `read_annotation_file`, and its other fields."""
    try:
        annotations, others = read_annotation_file(path, keep)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotations: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: expected COCO panoptic annotations in JSON, but {error}") from error
    if annotations is None:
        raise DataError(f'{path}: expected COCO panoptic annotations, got JSON without a list "annotations"')
    return annotations, others


def _segments_info(annotation: str) -> list[Any]:
    segments: list[Any] = json.loads(annotation)["segments_info"]
    return segments


def _require_keys(annotation: Any, where: str) -> None:
    """Refuses an annotation that lacks what is used here, or holds something else in its place."""
    keys = annotation.keys() if isinstance(annotation, dict) else ()
    missing = [key for key in _ANNOTATION_KEYS if key not in keys]
    if missing:
        # COCO's annotations for detection have a list of this name too, with other keys.
        raise DataError(
            f"{where}: expected {', '.join(_ANNOTATION_KEYS)}, as in COCO's panoptic annotations"
            f" (panoptic_val2017.json, say); missing: {', '.join(missing)}"
        )
    name, segments = annotation["file_name"], annotation["segments_info"]
    if not isinstance(name, str) or "\0" in name:
        raise DataError(f"{where}: expected the name of a PNG as file_name, got {quoted(name)}; mend it in the JSON")
    if not isinstance(segments, list):
        raise DataError(
            f"{where}: expected a list as segments_info, got {quoted(segments)}; where there are no segments it is []"
        )


def _by_field(entries: Sequence[Any], field: str, where: str) -> dict[Any, dict[str, Any]]:
    """JSON objects by one of their fields.

    Of several with the same value the last counts, in the place of the first: what Python makes of them, and with it
    the official script.
    """
    found: dict[Any, dict[str, Any]] = {}
    for number, entry in enumerate(entries):
        found[_plain_value(entry, field, f"{where} {number}")] = entry
    return found


def _plain_value(entry: Any, field: str, where: str) -> Any:
    """What a JSON object holds in a field, which has to be there and be neither a list nor an object."""
    if not isinstance(entry, dict) or field not in entry:
        raise DataError(f"{where}: expected an object with {field}, got {quoted(entry)}; add it to the JSON")
    value = entry[field]
    if isinstance(value, (list, dict)):
        raise DataError(f"{where}: expected a number as {field}, got {quoted(value)}; mend it in the JSON")
    return value


def _categories(entries: Any, where: str) -> Categories:
    """The categories of the truth. Their names are only shown, so those that are missing or equal get the id."""
    if not entries or not isinstance(entries, list):
        raise DataError(f'{where}: expected the classes under "categories", got none')
    by_id = _by_field(entries, "id", f"{where}: category")
    names = {number: str(c.get("name", f"category {number}")) for number, c in by_id.items()}
    uses = collections.Counter(names.values())
    classes = []
    for number, category in by_id.items():
        name = names[number] if uses[names[number]] == 1 else f"{names[number]} ({number})"
        if "isthing" not in category:
            raise DataError(
                f"{where}: category {number} ({name}): expected the field isthing, 0 or 1, in the JSON; it is missing"
            )
        color = category.get("color")
        rgb = tuple(color) if isinstance(color, list) else (0, 0, 0)
        classes.append(SegmentClass(number, name, category["isthing"] == 1, rgb, number))
    return Categories(where, tuple(classes))


def _predicted_segments(
    ids: np.ndarray, areas: np.ndarray, listed: Sequence[Any], index: dict[Any, int], path: str
) -> Segments:
    """The segments of a predicted PNG with their classes.

    Args:
        ids: int64 [S], the ids that occur in the PNG, ascending.
        areas: float64 [S], the pixels of each. Areas of the JSON do not count.
        listed: `segments_info`. Id 0 is void unless it is listed.
        index: the index of each category id among the classes.
        path: the PNG, for messages.

    Raises:
        DataError: a segment lies only in the PNG or only in the JSON, or its category is unknown.
    """
    segments = _by_field(listed, "id", f"{path}: segments_info, entry")
    classes = np.full(len(ids), VOID)
    for place, segment_id in enumerate(ids.tolist()):
        where = f"{path}: segment {segment_id}"
        if segment_id not in segments:
            if segment_id == _PNG_VOID:
                continue
            raise DataError(
                f"{where} is in the PNG but not in its JSON; expected each id of the PNG in segments_info, got"
                f" {counted(int(areas[place]), 'pixel')} of one that is missing. List it, or make these pixels 0 (void)"
            )
        category = _plain_value(segments[segment_id], "category_id", where)
        if category not in index:
            raise DataError(
                f"{where} has category {quoted(category)}, which is unknown; expected a category_id of the truth, got"
                " another. Number the categories of predictions as the truth does"
            )
        classes[place] = index[category]
    present = set(ids.tolist())
    for segment_id in segments:
        if segment_id not in present:
            raise DataError(
                f"{path}: segment {quoted(segment_id)} is in the JSON but not in its PNG; expected pixels of each"
                f" segment (ids are numbers up to {_LARGEST_ID:,}), got none of this id. Take it out of segments_info,"
                " or number JSON and PNG alike"
            )
    return Segments(classes, np.zeros(len(ids), bool), areas)


def _true_segments(
    ids: np.ndarray, overlaps: np.ndarray, listed: Sequence[Any], index: dict[Any, int], path: str
) -> tuple[Segments, np.ndarray]:
    """The segments of the truth that count, and void.

    Args:
        ids: int64 [T], the ids that occur in the PNG, ascending.
        overlaps: float64 [T, P], pixels that they share with the predicted ids.
        listed: `segments_info`, which may name ids that the PNG does not have, and lack some that it has.
        index: the index of each category id among the classes.
        path: the PNG, for messages.

    Returns:
        The segments; float64 [S, P], pixels that they share with the predicted ids. Pixels of the PNG that belong to no
        segment of `listed` are in no row, as they are not void: predictions there are wrong. If id 0 is listed, its
        pixels are both void and a segment.

    Raises:
        DataError: a segment has no id or no category.
    """
    listed_segments = _by_field(listed, "id", f"{path}: segments_info, entry")
    category_of = {i: _plain_value(s, "category_id", f"{path}: segment {i}") for i, s in listed_segments.items()}
    segments = {i: s for i, s in listed_segments.items() if category_of[i] in index}
    # The official script keeps one crowd region of each category, the last one listed, and excuses predictions by that
    # one only. The others are neither matched nor missed, nor do they excuse anything.
    crowd = {i for i, s in segments.items() if s.get("iscrowd") == 1}
    kept = set({category_of[i]: i for i in segments if i in crowd}.values())
    counting = [i for i in segments if i not in crowd or i in kept]

    place = {segment_id: row for row, segment_id in enumerate(ids.tolist())}
    with_absent = np.vstack([overlaps, np.zeros_like(overlaps[:1])])
    shared = with_absent[[place.get(i, -1) for i in (_PNG_VOID, *counting)]]
    void_pixels, *pixels = shared.sum(1).tolist()
    true_segments = Segments(
        classes=np.array([VOID, *(index[category_of[i]] for i in counting)]),
        crowd=np.array([False, *(i in crowd for i in counting)]),
        areas=np.array([void_pixels, *(_area(segments[i], count) for i, count in zip(counting, pixels))]),
    )
    return true_segments, shared


def _area(segment: dict[str, Any], pixels: float) -> float:
    """The area that the JSON gives a true segment, right or wrong; its pixels where that is no number."""
    area = segment.get("area")
    return float(min(max(area, -_HUGE_AREA), _HUGE_AREA)) if isinstance(area, (int, float)) else pixels
