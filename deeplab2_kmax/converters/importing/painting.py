"""Paints the regions of a picture on top of each other, which gives its panoptic label.

In a panoptic label, each pixel belongs to one segment, whereas regions may overlap. A rule says which one is on top;
how many pixels things lose by it is counted.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deeplab2_kmax.converters.importing.regions import AnnotatedImage, Region
from deeplab2_kmax.converters.reading.label_pngs import read_id_png
from deeplab2_kmax.datasets import DatasetDescriptor, SegmentClass
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import counted, some_of

OVERLAPS = ("smaller_on_top", "later_on_top", "earlier_on_top")
# What is counted, by the words that the terminal and the manifest use.
OVERLAPPING = "pixels of things lost to regions on top"
HIDDEN = "things hidden completely"
EMPTY = "regions without a pixel"
CROWDS = "crowd regions labelled as void"
_NAMED = 8


@dataclasses.dataclass(frozen=True)
class PaintRules:
    """How regions become a label.

    Attributes:
        descriptor: the classes, and the encoding of the label.
        classes: {name of a class in the annotations: its class; None means void}.
        overlaps: one of `OVERLAPS`, which decides between regions of the same level: those with fewer pixels are on
            top, those that come later in the annotations, or those that come earlier.
        treat_crowd_as_ignore: whether crowd regions become void; otherwise they get their class with instance id 0.
        background: the stuff class of pixels without a region; None: they are void.
        stuff_values: the stuff class of each number in the stuff PNGs of pictures; None means void.
    """

    descriptor: DatasetDescriptor
    classes: Mapping[str, SegmentClass | None]
    overlaps: str
    treat_crowd_as_ignore: bool = True
    background: SegmentClass | None = None
    stuff_values: Mapping[int, SegmentClass | None] = dataclasses.field(default_factory=dict)


def panoptic_label(
    image: AnnotatedImage, height: int, width: int, rules: PaintRules
) -> tuple[np.ndarray, dict[str, int]]:
    """Paints the label of a picture.

    The instances of a class are numbered from 1 in the order of the annotations; those without a visible pixel get no
    number.

    Args:
        image: the picture and its regions.
        height, width: of the upright picture.
        rules: how regions become a label.

    Returns:
        label: int32 panoptic ids [height, width].
        counts: how much of the annotations the label does not hold, `OVERLAPPING`, `HIDDEN`, `EMPTY` and `CROWDS`,
            those only that are not 0.

    Raises:
        DataError: the annotations are of a picture of another size, a region is broken, has a class that `classes` does
            not know, or a stuff class as a crowd; or a class has more instances than the label divisor allows.
    """
    _require_size(image, height, width)
    segments = [_segment_of(region, place, rules) for place, region in enumerate(image.regions)]
    masks = [np.packbits(r.shape.mask(height, width, r.where), axis=None) for r in image.regions]
    mask_areas = [_area(mask) for mask in masks]
    areas: collections.Counter[_Segment] = collections.Counter()
    for segment, area in zip(segments, mask_areas):
        areas[segment] += area
    order = sorted(range(len(masks)), key=lambda k: (image.regions[k].level, _rank(k, areas[segments[k]], rules)))
    number_of = {segment: number for number, segment in enumerate(dict.fromkeys(segments), start=1)}
    painted = np.zeros((height, width), np.int32)
    unions: dict[_Segment, np.ndarray] = {}
    for k in order:
        painted[_unpacked(masks[k], height, width)] = number_of[segments[k]]
        segment = segments[k]
        unions[segment] = unions[segment] | masks[k] if segment in unions else masks[k]
    visible = np.bincount(painted.ravel(), minlength=len(number_of) + 1)
    counts = _losses(unions, visible, number_of, mask_areas)
    if rules.treat_crowd_as_ignore and (crowds := sum(region.is_crowd for region in image.regions)):
        counts[CROWDS] = crowds
    label = _panoptic_ids(number_of, visible, rules, image.where)[painted]
    if image.stuff_png is not None:
        label = np.where(painted == 0, _stuff_below(image.stuff_png, label.shape, rules), label)
    return label, counts


class _Segment(NamedTuple):
    """What regions are parts of: `class_id` is None for void, `instance` for stuff and crowds."""

    class_id: int | None
    instance: int | str | None = None


def _segment_of(region: Region, place: int, rules: PaintRules) -> _Segment:
    if region.class_name not in rules.classes:
        known = ", ".join(sorted(rules.classes))
        raise DataError(f"{region.where}: expected one of the classes {known}, got {region.class_name!r}")
    segment_class = rules.classes[region.class_name]
    if segment_class is None:
        return _Segment(None)
    if region.is_crowd and not segment_class.is_thing:
        raise DataError(
            f"{region.where}: expected a crowd of things, got one of the stuff {segment_class.name!r}; mark it as no"
            " crowd"
        )
    if region.is_crowd or not segment_class.is_thing:
        return _Segment(segment_class.id)
    return _Segment(segment_class.id, place if region.instance is None else region.instance)


def _rank(place: int, area: int, rules: PaintRules) -> tuple[int, int]:
    """What is painted first has the lowest rank."""
    if rules.overlaps == "smaller_on_top":
        return -area, place
    return (place, 0) if rules.overlaps == "later_on_top" else (-place, 0)


def _losses(
    unions: Mapping[_Segment, np.ndarray], visible: np.ndarray, number_of: Mapping[_Segment, int], areas: Sequence[int]
) -> dict[str, int]:
    things = [segment for segment in unions if segment.instance is not None]
    lost = {segment: _area(unions[segment]) - int(visible[number_of[segment]]) for segment in things}
    counts = {
        OVERLAPPING: sum(lost.values()),
        HIDDEN: sum(lost[segment] > 0 and not visible[number_of[segment]] for segment in things),
        EMPTY: sum(not area for area in areas),
    }
    return {what: count for what, count in counts.items() if count}


def _panoptic_ids(number_of: Mapping[_Segment, int], visible: np.ndarray, rules: PaintRules, where: str) -> np.ndarray:
    """The panoptic id of each number that is painted: int32 [segments + 1]; 0 stands for pixels without a region."""
    descriptor = rules.descriptor
    background = descriptor.void_id if rules.background is None else rules.background.id * descriptor.label_divisor
    ids = [background]
    instances: collections.Counter[int] = collections.Counter()
    for segment, number in number_of.items():
        class_id, instance = segment
        if class_id is None:
            ids.append(descriptor.void_id)
            continue
        first_id = class_id * descriptor.label_divisor
        if instance is None:
            is_crowd = descriptor.by_id[class_id].is_thing
            ids.append(descriptor.void_id if is_crowd and rules.treat_crowd_as_ignore else first_id)
            continue
        instances[class_id] += bool(visible[number])
        if instances[class_id] >= descriptor.label_divisor:
            raise DataError(
                f"{where}: expected at most {counted(descriptor.label_divisor - 1, 'instance')} of"
                f" {descriptor.by_id[class_id].name!r} (label_divisor {descriptor.label_divisor}), got more; give a"
                " descriptor with a larger label_divisor as --dataset"
            )
        ids.append(first_id + instances[class_id])
    return np.array(ids, np.int32)


def _stuff_below(path: str, shape: tuple[int, ...], rules: PaintRules) -> np.ndarray:
    """The panoptic ids of a PNG of stuff: int32 [height, width]."""
    numbers = read_id_png(path)
    if numbers.shape != shape:
        height, width = numbers.shape
        raise DataError(f"{path}: expected {shape[1]} x {shape[0]} pixels, as the picture has, got {width} x {height}")
    values, places, areas = np.unique(numbers, return_inverse=True, return_counts=True)
    ids = []
    for value, area in zip(values.tolist(), areas.tolist()):
        if value not in rules.stuff_values:
            raise DataError(
                f"{path}: {counted(area, 'pixel')} with the value {value}: expected one of"
                f" {some_of(sorted(rules.stuff_values), _NAMED)}, which stand for categories or for none"
            )
        stuff = rules.stuff_values[value]
        ids.append(rules.descriptor.void_id if stuff is None else stuff.id * rules.descriptor.label_divisor)
    return np.array(ids, np.int32)[places.reshape(shape)]


def _require_size(image: AnnotatedImage, height: int, width: int) -> None:
    """Refuses annotations that were made for another picture than the one that is there."""
    if image.size is None or tuple(image.size) == (height, width):
        return
    noted_height, noted_width = image.size
    swapped = (noted_width, noted_height) == (height, width)
    turned = "; does EXIF turn the picture, and has the tool ignored that?" if swapped else ""
    raise DataError(
        f"{image.where}: expected a picture of {noted_width} x {noted_height} pixels, as the annotations say, got"
        f" {width} x {height} in {image.image_path}{turned}"
    )


def _area(packed: np.ndarray) -> int:
    """The number of pixels of a mask with eight pixels a byte."""
    return int(_BITS[packed].sum())


def _unpacked(packed: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.unpackbits(packed, count=height * width).reshape(height, width).astype(bool)


# How many of the bits of a byte are set.
_BITS = np.array([bin(byte).count("1") for byte in range(256)], np.int64)
