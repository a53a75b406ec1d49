"""COCO's panoptic format, a JSON of segments and for each image a PNG of segment ids, as panoptic labels.

Format: https://cocodataset.org/#format-data, "Panoptic Segmentation"; Kirillov et al., "Panoptic Segmentation", 2019.
COCO is published in it; Cityscapes and ADE20K are converted to it by cityscapesscripts and by Mask2Former's script.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab2_kmax.converters.reading.images import read_source
from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass
from deeplab2_kmax.datasets.coco_fields import flag, whole_number
from deeplab2_kmax.datasets.segment_colors import colors_to_ids
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures.label_pngs import decode_colors
from deeplab2_kmax.records.label_runs import LabelRuns
from deeplab2_kmax.wording import counted

_UNLABELLED = 0
# Three bytes of a color.
_LARGEST_ID = 2**24 - 1
_SEGMENT_FIELDS = ("id", "category_id", "area")


@dataclasses.dataclass(frozen=True)
class PanopticFormat:
    """How a data set uses the format.

    Attributes:
        descriptor: the classes, and the encoding of the labels that are made.
        category_is: which field of a class `category_id` refers to: "source_id" or "id".
        treat_crowd_as_ignore: whether crowd regions become void; otherwise they get their class with instance id 0.
        void_categories: the values of `category_id` that mean void.
        areas_are_exact: whether `area` has to be the number of pixels that the segment has in the PNG.
        areas_are_optional: whether the PNG alone counts: `area` may be missing or another, but every segment has to
            have pixels.
        classes_by_category: the classes by `category_id`, if that is not the field of `category_is`.
    """

    descriptor: DatasetDescriptor
    category_is: str = "source_id"
    treat_crowd_as_ignore: bool = True
    void_categories: frozenset[int] = frozenset()
    areas_are_exact: bool = True
    areas_are_optional: bool = False
    classes_by_category: Mapping[int, SegmentClass] | None = None

    @property
    def classes(self) -> Mapping[int, SegmentClass]:
        """The classes by `category_id`."""
        if self.classes_by_category is not None:
            return self.classes_by_category
        return self.descriptor.by_id if self.category_is == "id" else self.descriptor.by_source_id


def read_panoptic_label(
    png_path: str,
    segments: Sequence[dict[str, Any]],
    source: PanopticFormat,
    areas: dict[int, int] | None = None,
) -> np.ndarray:
    """Reads the panoptic label of one image.

    The instances of a thing class are numbered from 1 in the order of `segments`, as in DeepLab2: a segment without
    pixels uses up a number, too. Pixels of no segment (id 0) are void.

    Args:
        png_path: the RGB PNG whose colors are segment ids, R + 256 G + 256^2 B.
        segments: `segments_info`; of each segment, `id`, `category_id`, `area` and `iscrowd` are used.
        source: the meaning of the fields.
        areas: if it is given, the pixels of each segment id in the PNG are put into it.

    Returns:
        int32 panoptic ids [height, width].

    Raises:
        DataError: PNG and segments contradict each other (an id that only one of them has, or another area); a category
            is unknown; stuff is a crowd; or a class has more instances than the label divisor allows.
    """
    panoptic_ids = _panoptic_ids(png_path, segments, source)
    runs = LabelRuns(_segment_ids(png_path))
    counted_areas = dict(runs.items())
    if areas is not None:
        areas.update(counted_areas)
    _check_areas(png_path, segments, counted_areas, source)
    return runs.paint(np.array([panoptic_ids[value] for value in runs.values.tolist()], np.int32))


def _check_areas(
    png_path: str, segments: Sequence[dict[str, Any]], areas: dict[int, int], source: PanopticFormat
) -> None:
    """Compares the segments of the JSON with the PNG, in which each segment id has `areas` pixels."""
    areas.pop(_UNLABELLED, None)
    for segment in segments:
        area = areas.pop(segment["id"], 0)
        if source.areas_are_optional:
            _require_pixels(png_path, segment, area)
        elif source.areas_are_exact and area != segment["area"]:
            raise DataError(
                f"{png_path}: segment {segment['id']}: expected {counted(segment['area'], 'pixel')} as the JSON"
                f" says, got {area}"
            )
    for segment_id, area in areas.items():
        pixels = counted(area, "pixel")
        raise DataError(
            f"{png_path}: segment {segment_id}: {pixels} of this id, expected only those that the JSON lists"
        )


def _require_pixels(png_path: str, segment: dict[str, Any], area: int) -> None:
    """Refuses a segment without pixels."""
    if not area:
        raise DataError(
            f"{png_path}: segment {segment['id']}: expected pixels of each segment that the JSON lists, got none of"
            " this id"
        )


def _panoptic_ids(png_path: str, segments: Sequence[dict[str, Any]], source: PanopticFormat) -> dict[int, int]:
    """The panoptic id of each segment id, including that of unlabelled pixels."""
    descriptor = source.descriptor
    panoptic_ids = {_UNLABELLED: descriptor.void_id}
    instances: collections.Counter[int] = collections.Counter()
    for position, segment in enumerate(segments):
        where = _checked_place(segment, position, png_path, panoptic_ids, source)
        if segment["category_id"] in source.void_categories:
            panoptic_ids[segment["id"]] = descriptor.void_id
            continue
        segment_class = _class_of(segment, where, source)
        panoptic_id = segment_class.id * descriptor.label_divisor
        if flag(segment, "iscrowd", where, default=False):
            panoptic_id = descriptor.void_id if source.treat_crowd_as_ignore else panoptic_id
        elif segment_class.is_thing:
            instances[segment_class.id] += 1
            if instances[segment_class.id] >= descriptor.label_divisor:
                raise DataError(
                    f"{where}: expected at most {counted(descriptor.label_divisor - 1, 'instance')} of"
                    f" {segment_class.name!r} an image (label_divisor {descriptor.label_divisor}), got more"
                )
            panoptic_id += instances[segment_class.id]
        panoptic_ids[segment["id"]] = panoptic_id
    return panoptic_ids


def _checked_place(segment: Any, position: int, png_path: str, seen: dict[int, int], source: PanopticFormat) -> str:
    """The words by which messages name a segment, after a check of its fields."""
    if not isinstance(segment, dict):
        raise DataError(f"{png_path}: entry {position} of segments_info: expected an object, got {segment!r}")
    where = f"{png_path}: segment {segment.get('id')}"
    fields = _SEGMENT_FIELDS[:-1] if source.areas_are_optional else _SEGMENT_FIELDS
    for field in fields:
        if field not in segment:
            raise DataError(f"{where}: expected the fields {', '.join(fields)} in the JSON, {field} is missing")
        whole_number(segment, field, where)
    if not _UNLABELLED <= segment["id"] <= _LARGEST_ID:
        raise DataError(
            f"{where}: expected an id from 1 to {_LARGEST_ID:,}, which the color of a pixel can hold, got"
            f" {segment['id']:,}; number the segments of each image anew, in JSON and PNG"
        )
    if segment["id"] in seen:
        what = "the id of unlabelled pixels" if segment["id"] == _UNLABELLED else "listed twice in the JSON"
        raise DataError(f"{where}: expected segment ids that are unique and not {_UNLABELLED}, got one that is {what}")
    return where


def _class_of(segment: dict[str, Any], where: str, source: PanopticFormat) -> SegmentClass:
    """The class of a segment; only things may be crowds."""
    segment_class = source.classes.get(segment["category_id"])
    if segment_class is None:
        raise DataError(
            f"{where}: expected the category_id of a class of {source.descriptor.name}, got {segment['category_id']}"
        )
    if flag(segment, "iscrowd", where, default=False) and not segment_class.is_thing:
        raise DataError(f"{where}: expected iscrowd for things only, got it for the stuff class {segment_class.name!r}")
    return segment_class


def _segment_ids(png_path: str) -> np.ndarray:
    """The segment ids of a panoptic PNG: int32 [height, width]."""
    return colors_to_ids(decode_colors(read_source(png_path, "panoptic PNG"), png_path))
