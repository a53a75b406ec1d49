"""Panoptic quality of files in COCO's panoptic format: JSON annotations and a folder of PNGs that hold segment ids."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass
from deeplab2_kmax.datasets.coco_fields import flag
from deeplab2_kmax.datasets.segment_colors import colors_to_ids
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.panoptic_quality import (
    UNCOUNTED,
    VOID,
    PanopticQuality,
    PanopticQualityResult,
    Segments,
    compare_segments,
    overlap_table,
)
from deeplab2_kmax.pictures.label_pngs import decode_colors

_PNG_VOID = 0
_ANNOTATION_KEYS = frozenset(["image_id", "file_name", "segments_info"])


def coco_panoptic_quality(
    truth_json: files.StrPath,
    prediction_json: files.StrPath,
    truth_folder: files.StrPath | None = None,
    prediction_folder: files.StrPath | None = None,
) -> PanopticQualityResult:
    """Panoptic quality of predictions in COCO's format, computed as the official script (panopticapi) does.

    Args:
        truth_json: annotations with "categories"; segments may be crowd. This path and the others may be remote.
        prediction_json: annotations for all images of the truth; those of other images are not looked at.
        truth_folder: the PNGs of the truth; None: the folder beside its JSON file, of the same name without ".json".
        prediction_folder: the PNGs of the predictions; None: found in the same way.

    Returns:
        The quality; its descriptor holds the categories of the truth under their own ids.

    Raises:
        DataError: a file is missing or broken, an image has no prediction, sizes differ, a segment of a PNG is not in
            its JSON or the other way round, or a category is unknown. The message names the file and the id.
    """
    truth, prediction = _read_json(truth_json), _read_json(prediction_json)
    truth_folder = truth_folder or os.path.splitext(truth_json)[0]
    prediction_folder = prediction_folder or os.path.splitext(prediction_json)[0]
    descriptor = _descriptor(truth.get("categories", []), str(truth_json))
    index = {c.id: number for number, c in enumerate(descriptor.classes)}
    _require_same_names(descriptor, prediction.get("categories", []), str(prediction_json))
    predicted = {annotation["image_id"]: annotation for annotation in prediction["annotations"]}

    quality = PanopticQuality(descriptor)
    for annotation in truth["annotations"]:
        image_id = annotation["image_id"]
        if image_id not in predicted:
            raise DataError(
                f"{prediction_json}: expected a prediction for each image of {truth_json}, got none for "
                f"image {image_id}"
            )
        true_path = files.join(truth_folder, annotation["file_name"])
        predicted_path = files.join(prediction_folder, predicted[image_id]["file_name"])
        true_map, predicted_map = read_panoptic_png(true_path), read_panoptic_png(predicted_path)
        if true_map.shape != predicted_map.shape:
            raise DataError(
                f"{predicted_path}: expected the size of {true_path}, {list(true_map.shape)}; "
                f"got {list(predicted_map.shape)}"
            )
        true_ids, predicted_ids, overlaps = overlap_table(true_map, predicted_map)
        quality.merge(
            compare_segments(
                _segments(true_ids, annotation, index, true_path),
                _segments(predicted_ids, predicted[image_id], index, predicted_path),
                overlaps,
                len(index),
            )
        )
    return quality.result()


def read_panoptic_png(path: files.StrPath) -> np.ndarray:
    """Segment ids of a COCO panoptic PNG, int32 [H, W]; 0 is void.

    Raises:
        DataError: the file is missing or not an image.
    """
    try:
        content = files.read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the panoptic PNG: {error.strerror}") from error
    return colors_to_ids(decode_colors(content, os.fspath(path)))


def _read_json(path: files.StrPath) -> dict[str, Any]:
    """The content of an annotation file whose "annotations" have all the keys that are used here."""
    try:
        content = files.read_json(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotations: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: expected COCO panoptic annotations in JSON, but {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        raise DataError(f'{path}: expected COCO panoptic annotations, got JSON without a list "annotations"')
    for number, annotation in enumerate(content["annotations"]):
        missing = _ANNOTATION_KEYS - annotation.keys() if isinstance(annotation, dict) else _ANNOTATION_KEYS
        if missing:
            # COCO's annotations for detection have a list of this name too, with other keys.
            raise DataError(
                f"{path}: annotation {number}: expected {', '.join(sorted(_ANNOTATION_KEYS))}, as in COCO's panoptic "
                f"annotations (panoptic_val2017.json, say); missing: {', '.join(sorted(missing))}"
            )
    return content


def _descriptor(categories: list[dict[str, Any]], where: str) -> DatasetDescriptor:
    """The categories of an annotation file as a data set whose class ids are the category ids."""
    if not categories:
        raise DataError(f'{where}: expected the classes under "categories", got none')
    classes = tuple(
        SegmentClass(
            c["id"],
            c["name"],
            flag(c, "isthing", f"{where}: category {c['id']} ({c['name']})"),
            tuple(c.get("color", (0, 0, 0))),
            c["id"],
        )
        for c in categories
    )
    largest = max(c.id for c in classes)
    # Descriptors need an id for void and a label divisor; segments are compared by the ids of the PNGs, so that both
    # are placeholders here.
    unused = next(i for i in range(largest + 2) if i not in {c.id for c in classes})
    return DatasetDescriptor(where, classes, num_classes=largest + 1, ignore_label=unused, label_divisor=2)


def _require_same_names(truth: DatasetDescriptor, categories: list[dict[str, Any]], where: str) -> None:
    """Refuses predictions whose file calls a category id by another name than the truth does."""
    for category in categories:
        known = truth.by_id.get(category.get("id", VOID))
        if known is not None and category.get("name", known.name) != known.name:
            raise DataError(
                f"{where}: expected the categories of {truth.name}, where {known.id} is {known.name!r}; got"
                f" {category['name']!r} for {known.id}. Number the predictions as the truth does"
            )


def _segments(ids: np.ndarray, annotation: dict[str, Any], index: dict[int, int], path: str) -> Segments:
    """The segments of a PNG with their classes.

    Args:
        ids: int64 [S], the ids that occur in the PNG.
        annotation: describes the segments by their ids.
        index: the index of each category id among the classes.
        path: the PNG, for messages.

    Raises:
        DataError: a segment lies only in the PNG or only in the annotation, or its category is unknown.
    """
    described = {segment["id"]: segment for segment in annotation["segments_info"]}
    present = set(ids.tolist()) - {_PNG_VOID}
    for segment_id in sorted(present ^ described.keys()):
        place = "PNG but not in its JSON" if segment_id in present else "JSON but not in its PNG"
        raise DataError(f"{path}: segment {segment_id} is in the {place}")
    for segment in described.values():
        if segment["category_id"] not in index:
            raise DataError(f"{path}: segment {segment['id']} has category {segment['category_id']}, which is unknown")
    # The official script keeps one crowd region of each category, the last one listed, and excuses predictions by that
    # one only. The others are neither matched nor missed, nor do they excuse anything.
    is_crowd = {s["id"]: flag(s, "iscrowd", f"{path}: segment {s['id']}", default=False) for s in described.values()}
    crowd_of = {s["category_id"]: s["id"] for s in described.values() if is_crowd[s["id"]]}

    def class_of(segment_id: int) -> int:
        if segment_id == _PNG_VOID:
            return VOID
        segment = described[segment_id]
        if is_crowd[segment_id] and crowd_of[segment["category_id"]] != segment_id:
            return UNCOUNTED
        return index[segment["category_id"]]

    crowd = np.isin(ids, list(crowd_of.values()))
    return Segments(ids, np.array([class_of(i) for i in ids.tolist()], np.int64), crowd)
