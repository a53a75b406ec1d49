"""Label maps in COCO's panoptic format: a JSON file and a folder of PNGs whose colours encode segment ids."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
from PIL import Image

from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass
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

_PNG_VOID = 0


def coco_panoptic_quality(
    truth_json: str | os.PathLike,
    prediction_json: str | os.PathLike,
    truth_folder: str | os.PathLike | None = None,
    prediction_folder: str | os.PathLike | None = None,
) -> PanopticQualityResult:
    """Panoptic quality of one set of COCO-format results against another, as the official script computes it.

    Args:
        truth_json: annotations with "categories"; segments may be crowd.
        prediction_json: annotations for (at least) the images of the truth.
        truth_folder: its PNGs; None: the folder beside the JSON file of the same name without ".json".
        prediction_folder: likewise.

    Returns:
        The quality; its descriptor holds the categories of the truth by their own ids.

    Raises:
        DataError: a file is missing or broken, an image has no prediction, sizes differ, a segment of a PNG is not in
            its JSON or the other way round, or a category is unknown. The message names the file and the id.
    """
    truth, prediction = _read_json(truth_json), _read_json(prediction_json)
    truth_folder = pathlib.Path(truth_folder or os.path.splitext(truth_json)[0])
    prediction_folder = pathlib.Path(prediction_folder or os.path.splitext(prediction_json)[0])
    descriptor = _descriptor(truth.get("categories", []), str(truth_json))
    index = {c.id: number for number, c in enumerate(descriptor.classes)}
    predicted = {annotation["image_id"]: annotation for annotation in prediction["annotations"]}

    quality = PanopticQuality(descriptor)
    for annotation in truth["annotations"]:
        image_id = annotation["image_id"]
        if image_id not in predicted:
            raise DataError(f"{prediction_json}: no prediction for image {image_id}")
        true_path = truth_folder / annotation["file_name"]
        predicted_path = prediction_folder / predicted[image_id]["file_name"]
        true_map, predicted_map = read_panoptic_png(true_path), read_panoptic_png(predicted_path)
        if true_map.shape != predicted_map.shape:
            raise DataError(
                f"{predicted_path}: expected the size of {true_path}, {list(true_map.shape)}; "
                f"came {list(predicted_map.shape)}"
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


def read_panoptic_png(path: str | os.PathLike) -> np.ndarray:
    """Segment ids of a COCO panoptic PNG, int64 [H,W]: R + 256 G + 256**2 B; 0 is void.

    Raises:
        DataError: the file is missing or not an image.
    """
    try:
        with Image.open(path) as image:
            colors = np.asarray(image.convert("RGB"), np.int64)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: cannot read the panoptic PNG: {error}") from error
    return colors[..., 0] + 256 * colors[..., 1] + 256**2 * colors[..., 2]


def _read_json(path: str | os.PathLike) -> dict:
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotations: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: expected COCO panoptic annotations in JSON, but {error}") from error
    if not isinstance(content, dict) or "annotations" not in content:
        raise DataError(f'{path}: expected COCO panoptic annotations, came JSON without "annotations"')
    return content


def _descriptor(categories: list[dict], where: str) -> DatasetDescriptor:
    """The categories of an annotation file as a data set whose class ids are the category ids."""
    if not categories:
        raise DataError(f'{where}: expected "categories", came none')
    classes = tuple(
        SegmentClass(c["id"], c["name"], bool(c["isthing"]), tuple(c.get("color", (0, 0, 0))), c["id"])
        for c in categories
    )
    largest = max(c.id for c in classes)
    unused = next(i for i in range(largest + 2) if i not in {c.id for c in classes})
    return DatasetDescriptor(where, classes, num_classes=largest + 1, ignore_label=unused, label_divisor=2)


def _segments(ids: np.ndarray, annotation: dict, index: dict[int, int], path: pathlib.Path) -> Segments:
    """The segments `ids` of a PNG as its annotation describes them."""
    described = {segment["id"]: segment for segment in annotation["segments_info"]}
    present = set(ids.tolist()) - {_PNG_VOID}
    for segment_id in sorted(present ^ described.keys()):
        place = "PNG but not in its JSON" if segment_id in present else "JSON but not in its PNG"
        raise DataError(f"{path}: segment {segment_id} is in the {place}")
    for segment in described.values():
        if segment["category_id"] not in index:
            raise DataError(f"{path}: segment {segment['id']} has category {segment['category_id']}, which is unknown")
    # The official script excuses predictions by one crowd region a category: the last one listed.
    crowd_of = {s["category_id"]: s["id"] for s in described.values() if s.get("iscrowd", 0)}

    def class_of(segment_id):
        if segment_id == _PNG_VOID:
            return VOID
        segment = described[segment_id]
        if segment.get("iscrowd", 0) and crowd_of[segment["category_id"]] != segment_id:
            return UNCOUNTED
        return index[segment["category_id"]]

    crowd = np.isin(ids, list(crowd_of.values()))
    return Segments(ids, np.array([class_of(i) for i in ids.tolist()], np.int64), crowd)
