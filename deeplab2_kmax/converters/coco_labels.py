"""COCO's panoptic annotations (a JSON of segments and a PNG of segment ids an image) as panoptic label maps.

Format: https://cocodataset.org/#format-data, "Panoptic Segmentation"; Kirillov et al., "Panoptic Segmentation", 2019.
"""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.input_pipeline.schema import open_image

_UNLABELLED = 0
_SEGMENT_FIELDS = ("id", "category_id", "area")


def read_annotations(json_path: str) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Reads the segments of all images.

    Returns:
        For each image, by its file name without extension: the file name of its PNG, and its `segments_info`.

    Raises:
        DataError: the file is missing, is not COCO panoptic JSON, or has two annotations for one image.
    """
    try:
        with open(json_path, encoding="utf-8") as file:
            annotations = json.load(file)["annotations"]
        by_stem: dict[str, tuple[str, list[dict[str, Any]]]] = {}
        for annotation in annotations:
            png_name = annotation["file_name"]
            stem = os.path.splitext(png_name)[0]
            if stem in by_stem:
                raise DataError(f"{json_path}: expected one annotation an image, came a second for {png_name}")
            by_stem[stem] = (png_name, annotation["segments_info"])
    except OSError as error:
        raise DataError(f"{json_path}: cannot read the annotations: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{json_path}: expected JSON, but {error}") from error
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{json_path}: expected COCO panoptic annotations, each with file_name and segments_info; came {error!r}"
        ) from error
    return by_stem


def read_panoptic_label(
    png_path: str, segments: Sequence[dict[str, Any]], descriptor: DatasetDescriptor, treat_crowd_as_ignore: bool
) -> np.ndarray:
    """The panoptic label of one image.

    Instances of a thing class are numbered from 1 in the order of `segments`. A crowd region becomes void, or its
    class with instance 0. Pixels of no segment (id 0) are void.

    Args:
        png_path: the RGB PNG whose pixels hold segment ids, R + 256 G + 256^2 B.
        segments: COCO's `segments_info`; of each segment `id`, `category_id`, `area` and `iscrowd` are used.
        descriptor: its source ids are the category ids.
        treat_crowd_as_ignore: whether crowd regions become void.

    Returns:
        int32 panoptic ids [height, width].

    Raises:
        DataError: PNG and segments disagree (an id that only one of them has, another area), an unknown category, a
            crowd of stuff, or more instances of a class than the label divisor allows.
    """
    panoptic_ids = _panoptic_ids(png_path, segments, descriptor, treat_crowd_as_ignore)
    runs = _Runs(_segment_ids(png_path))
    _check_areas(png_path, segments, dict(zip(runs.values.tolist(), runs.areas.tolist())))
    return runs.paint(np.array([panoptic_ids[value] for value in runs.values.tolist()], np.int32))


def _check_areas(png_path: str, segments: Sequence[dict[str, Any]], areas: dict[int, int]) -> None:
    """Compares the JSON's segments with the pixels of each segment id in the PNG."""
    areas.pop(_UNLABELLED, None)
    for segment in segments:
        area = areas.pop(segment["id"], 0)
        if area != segment["area"]:
            raise DataError(
                f"{png_path}: segment {segment['id']}: expected {segment['area']} pixels as the JSON says, came {area}"
            )
    for segment_id, area in areas.items():
        raise DataError(f"{png_path}: segment {segment_id}: {area} pixels have this id, which the JSON does not list")


def _panoptic_ids(
    png_path: str, segments: Sequence[dict[str, Any]], descriptor: DatasetDescriptor, treat_crowd_as_ignore: bool
) -> dict[int, int]:
    """The panoptic id of each segment id, unlabelled included."""
    panoptic_ids = {_UNLABELLED: descriptor.void_id}
    instances: collections.Counter[int] = collections.Counter()
    for segment in segments:
        where = f"{png_path}: segment {segment.get('id')}"
        _check_segment(segment, where, panoptic_ids, descriptor)
        segment_class = descriptor.by_source_id[segment["category_id"]]
        panoptic_id = segment_class.id * descriptor.label_divisor
        if segment.get("iscrowd"):
            panoptic_id = descriptor.void_id if treat_crowd_as_ignore else panoptic_id
        elif segment_class.is_thing:
            instances[segment_class.id] += 1
            if instances[segment_class.id] >= descriptor.label_divisor:
                raise DataError(
                    f"{where}: expected at most {descriptor.label_divisor - 1} instances of {segment_class.name!r} "
                    f"an image (label divisor {descriptor.label_divisor}), came more"
                )
            panoptic_id += instances[segment_class.id]
        panoptic_ids[segment["id"]] = panoptic_id
    return panoptic_ids


def _check_segment(segment: dict[str, Any], where: str, seen: dict[int, int], descriptor: DatasetDescriptor) -> None:
    missing = [field for field in _SEGMENT_FIELDS if field not in segment]
    if missing:
        raise DataError(
            f"{where}: expected the fields {', '.join(_SEGMENT_FIELDS)} in the JSON, {missing[0]} is missing"
        )
    if segment["id"] in seen:
        what = "the id of unlabelled pixels" if segment["id"] == _UNLABELLED else "listed twice in the JSON"
        raise DataError(f"{where}: expected segment ids that are unique and not {_UNLABELLED}, came one that is {what}")
    if segment["category_id"] not in descriptor.by_source_id:
        raise DataError(
            f"{where}: expected a category_id of {descriptor.name}, came {segment['category_id']}, which is none"
        )
    segment_class = descriptor.by_source_id[segment["category_id"]]
    if segment.get("iscrowd") and not segment_class.is_thing:
        raise DataError(
            f"{where}: expected iscrowd for things only, came it for the stuff class {segment_class.name!r}"
        )


def _segment_ids(png_path: str) -> np.ndarray:
    """The segment ids of a COCO panoptic PNG: int32 [height, width]."""
    try:
        with open(png_path, "rb") as file:
            image = open_image(file.read(), png_path)
    except OSError as error:
        raise DataError(f"{png_path}: cannot read the panoptic PNG: {error.strerror}") from error
    if image.mode != "RGB":
        raise DataError(f"{png_path}: expected an RGB PNG of segment ids, came mode {image.mode}")
    red, green, blue = np.moveaxis(np.asarray(image, np.int32), -1, 0)
    return red + 256 * green + 65536 * blue


class _Runs:
    """A map of ids as runs of equal pixels. There are a hundred times fewer runs than pixels to sort and count.

    Attributes:
        values: the ids that occur, ascending.
        areas: pixels of each.
    """

    def __init__(self, ids: np.ndarray):
        flat = ids.ravel()
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
        self._shape = ids.shape
        self._lengths = np.diff(starts, append=flat.size)
        self.values, self._which = np.unique(flat[starts], return_inverse=True)
        self.areas = np.bincount(self._which, weights=self._lengths).astype(np.int64)

    def paint(self, new_values: np.ndarray) -> np.ndarray:
        """The map with `new_values[i]` in place of `values[i]`."""
        return np.repeat(new_values[self._which], self._lengths).reshape(self._shape)
