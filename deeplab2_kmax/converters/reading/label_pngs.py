"""Pairs of a semantic and an instance PNG, with one number a pixel each, as panoptic labels."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np

from deeplab2_kmax.converters.reading.images import read_source
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures.label_pngs import decode_numbers
from deeplab2_kmax.records.label_runs import LabelRuns
from deeplab2_kmax.wording import counted

_LARGEST_NUMBER = 2**16 - 1


@dataclasses.dataclass(frozen=True)
class LabelPngFormat:
    """The meaning of the numbers in label PNGs.

    Attributes:
        descriptor: the classes; a number in a semantic PNG is the `source_id` of one of them.
        void_values: the numbers in semantic PNGs that mean void.
        treat_crowd_as_ignore: whether pixels of a thing class with instance number 0 become void; otherwise they become
            a crowd.
        ignore_stuff_instances: whether instance numbers on stuff are dropped; otherwise they are an error.
        no_instance_below: numbers in instance PNGs that are smaller mean no instance, as 0 does.
    """

    descriptor: DatasetDescriptor
    void_values: frozenset[int]
    treat_crowd_as_ignore: bool = False
    ignore_stuff_instances: bool = False
    no_instance_below: int = 1


def read_id_png(path: str) -> np.ndarray:
    """Reads a PNG with one number a pixel: grey values of 1 to 16 bits, or indices into a palette.

    Returns:
        int32 [height, width], 0..65535.

    Raises:
        DataError: the file cannot be read, is not a whole PNG, or holds colors; the message begins with the path.
    """
    return decode_numbers(read_source(path, "label"), path)


def panoptic_label(
    semantic: np.ndarray, instances: np.ndarray | None, source: LabelPngFormat, where: str
) -> np.ndarray:
    """Joins class numbers and instance numbers to panoptic ids.

    The pixels of a thing class that have the same instance number, other than 0, are one instance. The instances of a
    class are numbered again, from 1 in the order of their numbers, so those may be larger than the label divisor.
    Pixels of a thing class with instance number 0 are a crowd, that is, things that are not told apart.

    Args:
        semantic: int32 [height, width], the source ids of classes, or void values.
        instances: int32 [height, width], 0..65535; None if all classes are stuff.
        source: the meaning of the numbers.
        where: what messages begin with, such as the path of the semantic PNG.

    Returns:
        int32 panoptic ids [height, width].

    Raises:
        DataError: the sizes differ, a number belongs to no class, stuff has an instance number, or a class has more
            instances than the label divisor allows.
    """
    if instances is None:
        instances = np.zeros_like(semantic)
    if instances.shape != semantic.shape:
        raise DataError(
            f"{where}: expected two PNGs of the same size, got {_size(semantic)} for the classes and"
            f" {_size(instances)} for the instances"
        )
    instances = np.where(instances < source.no_instance_below, 0, instances)
    # One number for each pair of class and instance. The pairs come by ascending number, so the instances of a class
    # come in the order of their numbers.
    pairs = LabelRuns(semantic.astype(np.int64) * (_LARGEST_NUMBER + 1) + instances)
    counts: collections.Counter[int] = collections.Counter()
    ids = []
    for pair, area in pairs.items():
        value, instance = divmod(pair, _LARGEST_NUMBER + 1)
        ids.append(_panoptic_id(value, instance, counts, source, f"{where}: {counted(area, 'pixel')}"))
    return pairs.paint(np.array(ids, np.int32))


def _size(label: np.ndarray) -> str:
    return f"{label.shape[1]} x {label.shape[0]}"


def _panoptic_id(
    value: int, instance: int, counts: collections.Counter[int], source: LabelPngFormat, where: str
) -> int:
    """The panoptic id of the pixels with one pair of numbers.

    Args:
        value: the number in the semantic PNG.
        instance: the number in the instance PNG; 0 is none.
        counts: how many instances of each class there were before; a new one is added.
        source: the meaning of the numbers.
        where: what messages begin with.
    """
    descriptor = source.descriptor
    if value in source.void_values:
        return descriptor.void_id
    segment_class = descriptor.by_source_id.get(value)
    if segment_class is None:
        raise DataError(
            f"{where} with the value {value}: expected the source_id of a class of {descriptor.name} or one of the void"
            f" values {', '.join(map(str, sorted(source.void_values)))}"
        )
    first_id = segment_class.id * descriptor.label_divisor
    if not segment_class.is_thing:
        if instance and not source.ignore_stuff_instances:
            raise DataError(
                f"{where} of the stuff class {segment_class.name!r}: expected instance number 0, got {instance}"
                " (--ignore_stuff_instances drops such numbers)"
            )
        return first_id
    if not instance:
        return descriptor.void_id if source.treat_crowd_as_ignore else first_id
    counts[segment_class.id] += 1
    if counts[segment_class.id] >= descriptor.label_divisor:
        raise DataError(
            f"{where} of instance number {instance}: expected at most"
            f" {counted(descriptor.label_divisor - 1, 'instance')} of {segment_class.name!r} an image"
            f" (label_divisor {descriptor.label_divisor}), got more"
        )
    return first_id + counts[segment_class.id]
