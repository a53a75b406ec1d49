"""Reads and writes data set descriptors: the JSON files beside this one, and the user's own."""

from __future__ import annotations

import colorsys
import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_kmax import files
from deeplab2_kmax.datasets.descriptor import DatasetDescriptor, SegmentClass
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.wording import did_you_mean, quoted

_FOLDER = pathlib.Path(__file__).parent
_FIELDS = {"name": str, "num_classes": int, "ignore_label": int, "label_divisor": int, "classes": list}
_IN_WORDS = {str: "text", int: "a whole number", bool: "true or false", list: "a list"}
_CLASS_FIELDS = {"id": int, "source_id": int, "is_thing": bool, "color": list, "name": str}
# DeepLab2's names of the data sets that it has and this package does not.
_VIDEO_DATASETS = ("kitti_step", "motchallenge_step", "cityscapes_dvps", "semkitti_dvps")
# Fields that a file may leave out, because others determine them.
_OPTIONAL = ("num_classes", "source_id", "color")
# Steps of this fraction of a turn around the circle of hues never come close to an earlier hue, however many there are.
_GOLDEN_RATIO = 0.6180339887
_INT32_END = 2**31


def known_datasets() -> tuple[str, ...]:
    """The names of the built-in data sets, in alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def load_dataset(name: files.StrPath) -> DatasetDescriptor:
    """Loads the descriptor of a data set.

    Args:
        name: a name of `known_datasets`; or, where it ends in ".json", the path of a descriptor file, which starts at
            the working directory as the patterns of records do.

    Raises:
        ConfigError: there is no such data set (the message lists the known ones), or its descriptor is wrong.
    """
    name = os.fspath(name)
    if name.endswith(".json"):
        return read_descriptor(name)
    if name not in known_datasets():
        raise ConfigError(
            f"dataset: expected one of {', '.join(known_datasets())}, or the path of a descriptor .json; got {name!r}"
            f"{_advice(name)}"
        )
    return _built_in(name)


def _advice(name: str) -> str:
    """The end of a message about a data set that does not exist: which one may be meant, or how to go on."""
    if name in _VIDEO_DATASETS:
        return (
            ". It is a data set of videos, for which DeepLab2 itself is needed; its single frames can be trained on"
            " here like data of your own (docs/your_own_dataset.md)"
        )
    meant = did_you_mean(name, known_datasets())
    return meant or "; docs/your_own_dataset.md shows how to describe data of your own"


@functools.cache
def _built_in(name: str) -> DatasetDescriptor:
    return read_descriptor(_FOLDER / f"{name}.json")


def read_descriptor(path: files.StrPath) -> DatasetDescriptor:
    """Reads and checks a descriptor file.

    The file is a JSON object with the fields of `DatasetDescriptor`, and each of its classes an object with the fields
    of `SegmentClass` (see coco_panoptic.json). It may leave out `num_classes` (then one more than the largest id) and,
    of a class, `source_id` (then its id) and `color` (then one that differs from those of the classes beside it).

    Args:
        path: a local or remote file.

    Raises:
        ConfigError: the file is missing or not JSON; a field is missing, unknown or of another type; or the fields
            contradict each other, see `DatasetDescriptor`. The message names the file.
    """
    try:
        content = files.read_json(path, _with_unique_keys)
    except OSError as error:
        is_relative = not (files.is_remote(path) or os.path.isabs(path))
        started = f" (working directory {os.getcwd()})" if is_relative else ""
        raise ConfigError(f"{path}: cannot read the data set descriptor: {error.strerror}{started}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: expected a data set descriptor in JSON, but {error}") from error
    try:
        fields = _checked(content, _FIELDS, "the descriptor")
        return descriptor_of_entries(entries=fields.pop("classes"), **fields)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def write_descriptor(path: files.StrPath, descriptor: DatasetDescriptor) -> None:
    """Writes a descriptor file, one class a line.

    Args:
        path: a local or remote file; its folder is made where missing.
        descriptor: what to write.

    Raises:
        ConfigError: the file cannot be written.
    """
    head = {name: getattr(descriptor, name) for name in _FIELDS if name != "classes"}
    lines = [json.dumps({name: getattr(c, name) for name in _CLASS_FIELDS}) for c in descriptor.classes]
    text = json.dumps(head, indent=2)[:-2] + ',\n  "classes": [\n    ' + ",\n    ".join(lines) + "\n  ]\n}\n"
    try:
        files.write_text(path, text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the data set descriptor: {error.strerror}") from error


def new_descriptor(name: str) -> str | None:
    """The path of a descriptor file that is not there yet; None if `load_dataset` finds what `name` means."""
    return name if name.endswith(".json") and not files.exists(name) else None


def descriptor_of_entries(name: str, entries: Sequence[Any], **fields: int) -> DatasetDescriptor:
    """Makes a descriptor from the content of a descriptor file.

    Args:
        name: the name of the data set.
        entries: the list `classes` of the file.
        fields: `ignore_label`, `label_divisor` and, unless it follows from the entries, `num_classes`.

    Raises:
        ConfigError: as for `read_descriptor`, without the name of a file.
    """
    classes = [_checked(entry, _CLASS_FIELDS, f"entry {position} of classes") for position, entry in enumerate(entries)]
    largest_id = max((entry["id"] for entry in classes), default=0)
    return DatasetDescriptor(
        name=name,
        classes=tuple(_segment_class(entry, rank) for rank, entry in enumerate(classes)),
        num_classes=fields.get("num_classes", largest_id + 1),
        ignore_label=fields["ignore_label"],
        label_divisor=fields["label_divisor"],
    )


def distinct_color(rank: int) -> tuple[int, int, int]:
    """The color, RGB 0..255, of the class at place `rank` of a list without colors.

    Classes beside each other in the list differ in hue and lightness.
    """
    hue = rank * _GOLDEN_RATIO % 1
    red, green, blue = colorsys.hls_to_rgb(hue, (0.5, 0.38, 0.64)[rank % 3], 0.65)
    return round(255 * red), round(255 * green), round(255 * blue)


def _with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose keys differ."""
    if (repeated := files.repeated_key(pairs)) is not None:
        raise ValueError(f"an object has the key {repeated!r} twice")
    return dict(pairs)


def _field_problem(field: str, entry: Mapping[str, Any], types: Mapping[str, type]) -> str:
    """What is wrong with a field that is missing or unknown."""
    names = ", ".join(f"{name} (optional)" if name in _OPTIONAL else name for name in types)
    if field not in entry:
        return f"field {field!r} is missing; expected {names}"
    missing = [name for name in types if name not in entry]
    return f"field {field!r} is unknown; expected {names}{did_you_mean(field, missing)}"


def _segment_class(entry: Mapping[str, Any], rank: int) -> SegmentClass:
    filled = {"source_id": entry["id"], "color": distinct_color(rank), **entry}
    return SegmentClass(**{**filled, "color": tuple(filled["color"])})


def _checked(entry: object, types: Mapping[str, type], where: str) -> dict[str, Any]:
    """A copy of `entry`, after a check that it is a JSON object with these fields; optional ones may be missing.

    Args:
        entry: what the JSON holds.
        types: the type of each field.
        where: what messages begin with.

    Raises:
        ConfigError: it is not an object, or a field is missing, unknown or of another type.
    """
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected an object with {', '.join(types)}; got {quoted(entry)}")
    # Unknown fields first: a mistyped one is missing, too.
    for field in [*entry, *types]:
        if (field not in entry and field not in _OPTIONAL) or field not in types:
            raise ConfigError(f"{where}: {_field_problem(field, entry, types)}")
    for field, expected in types.items():
        if field not in entry:
            continue
        # In Python True is an int; in a descriptor it is a mistake for one.
        if not isinstance(entry[field], expected) or (expected is int and isinstance(entry[field], bool)):
            raise ConfigError(f"{where}: field {field!r}: expected {_IN_WORDS[expected]}, got {quoted(entry[field])}")
        if expected is int and not -_INT32_END <= entry[field] < _INT32_END:
            raise ConfigError(f"{where}: field {field!r}: expected a number of 32 bits, got {quoted(entry[field])}")
    if any(not isinstance(channel, int) or isinstance(channel, bool) for channel in entry.get("color", ())):
        raise ConfigError(f"{where}: field 'color': expected three whole numbers, got {quoted(entry['color'])}")
    return dict(entry)
