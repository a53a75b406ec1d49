"""Semantic and instance PNGs, one number a pixel each, as panoptic label maps."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records.label_runs import LabelRuns
from deeplab2_kmax.records.schema import open_image

_LARGEST_NUMBER = 2**16 - 1
_ONE_NUMBER_A_PIXEL = ("L", "P", "I", "I;16", "I;16B", "I;16L")


@dataclasses.dataclass(frozen=True)
class LabelPngFormat:
    """What the numbers in label PNGs mean.

    Attributes:
        descriptor: a number in a semantic PNG is the `source_id` of a class.
        void_values: numbers in semantic PNGs that mean void.
        treat_crowd_as_ignore: pixels of a thing class with instance number 0 become void, instead of a crowd.
        ignore_stuff_instances: instance numbers on stuff are dropped, instead of being an error.
        no_instance_below: smaller numbers in instance PNGs mean no instance, as 0 does.
    """

    descriptor: DatasetDescriptor
    void_values: frozenset[int]
    treat_crowd_as_ignore: bool = False
    ignore_stuff_instances: bool = False
    no_instance_below: int = 1


def read_id_png(path: str) -> np.ndarray:
    """Reads a PNG of one number a pixel: grey of 8 or 16 bits, or a palette's index.

    Returns:
        int32 [height, width], 0..65535.

    Raises:
        DataError: the file cannot be read, is no whole PNG, or holds colours; the message begins with the path.
    """
    try:
        with open(path, "rb") as file:
            image = open_image(file.read(), path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the label: {error.strerror}") from error
    if image.format != "PNG" or image.mode not in _ONE_NUMBER_A_PIXEL:
        raise DataError(
            f"{path}: expected a PNG with one number a pixel (grey of 8 or 16 bits, or palette),"
            f" came {image.format} of mode {image.mode}"
        )
    return np.asarray(image).astype(np.int32)


def panoptic_label(
    semantic: np.ndarray, instances: np.ndarray | None, source: LabelPngFormat, where: str
) -> np.ndarray:
    """Joins class and instance numbers.

    Pixels of one thing class and one instance number, other than 0, are an instance; instances of a class are numbered
    anew from 1 in the order of their numbers, so these may be as large as they like. Pixels of a thing class with
    instance number 0 are a crowd: things that are not told apart.

    Args:
        semantic: int32 [height, width], source ids of classes or void values.
        instances: int32 [height, width], 0..65535; None where all classes are stuff.
        source: what the numbers mean.
        where: begins the messages, such as the path of the semantic PNG.

    Returns:
        int32 panoptic ids [height, width].

    Raises:
        DataError: sizes that differ, a number that is no class, stuff with an instance number, or more instances of a
            class than the label divisor allows.
    """
    if instances is None:
        instances = np.zeros_like(semantic)
    if instances.shape != semantic.shape:
        raise DataError(
            f"{where}: expected an instance PNG of the same size {list(semantic.shape)}, came {list(instances.shape)}"
        )
    instances = np.where(instances < source.no_instance_below, 0, instances)
    # Equal pairs next to each other in every class, so that instances are met in the order of their numbers.
    pairs = LabelRuns(semantic.astype(np.int64) * (_LARGEST_NUMBER + 1) + instances)
    counts: collections.Counter[int] = collections.Counter()
    ids = [
        _panoptic_id(*divmod(pair, _LARGEST_NUMBER + 1), counts, source, f"{where}: {area} pixels")
        for pair, area in zip(pairs.values.tolist(), pairs.areas.tolist())
    ]
    return pairs.paint(np.array(ids, np.int32))


def _panoptic_id(value: int, instance: int, counts: collections.Counter[int], source: LabelPngFormat, where: str):
    """The panoptic id of the pixels with this pair of numbers; `counts` are the instances of each class so far."""
    descriptor = source.descriptor
    if value in source.void_values:
        return descriptor.void_id
    segment_class = descriptor.by_source_id.get(value)
    if segment_class is None:
        raise DataError(
            f"{where} have the value {value}, which is neither the source_id of a class of {descriptor.name} nor one of"
            f" the void values {', '.join(map(str, sorted(source.void_values)))}"
        )
    first_id = segment_class.id * descriptor.label_divisor
    if not segment_class.is_thing:
        if instance and not source.ignore_stuff_instances:
            raise DataError(
                f"{where} of the stuff class {segment_class.name!r} have instance number {instance}; expected 0"
                " (--ignore_stuff_instances drops such numbers)"
            )
        return first_id
    if not instance:
        return descriptor.void_id if source.treat_crowd_as_ignore else first_id
    counts[segment_class.id] += 1
    if counts[segment_class.id] >= descriptor.label_divisor:
        raise DataError(
            f"{where} are instance {counts[segment_class.id]} of {segment_class.name!r}; expected at most"
            f" {descriptor.label_divisor - 1} an image (label_divisor {descriptor.label_divisor})"
        )
    return first_id + counts[segment_class.id]
