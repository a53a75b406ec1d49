"""Reads data set descriptors: JSON files beside this one, or one of the user's own."""

from __future__ import annotations

import colorsys
import functools
import json
import os
import pathlib

from deeplab2_kmax.datasets.descriptor import DatasetDescriptor, SegmentClass
from deeplab2_kmax.errors import ConfigError

_FOLDER = pathlib.Path(__file__).parent
_FIELDS = {"name": str, "num_classes": int, "ignore_label": int, "label_divisor": int, "classes": list}
_CLASS_FIELDS = {"id": int, "source_id": int, "is_thing": bool, "color": list, "name": str}
# Fields that a file may leave out, because they follow from others.
_OPTIONAL = ("num_classes", "source_id", "color")
_GOLDEN_RATIO = 0.6180339887


def known_datasets() -> tuple[str, ...]:
    """Names `load_dataset` knows, in alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def load_dataset(name: str) -> DatasetDescriptor:
    """The descriptor of a built-in data set, or of the JSON file `name` where it ends in ".json".

    A relative path starts at the working directory, as those of `file_pattern` do.

    Raises:
        ConfigError: no such data set (the message lists the known ones), or a descriptor that does not make sense.
    """
    if name.endswith(".json"):
        return read_descriptor(name)
    if name not in known_datasets():
        raise ConfigError(
            f"dataset: expected one of {', '.join(known_datasets())}, or the path of a descriptor .json; came {name!r}"
        )
    return _built_in(name)


@functools.cache
def _built_in(name: str) -> DatasetDescriptor:
    return read_descriptor(_FOLDER / f"{name}.json")


def read_descriptor(path: str | pathlib.Path) -> DatasetDescriptor:
    """Reads and checks one descriptor file.

    The file is a JSON object with the fields of `DatasetDescriptor`, its classes being objects with the fields of
    `SegmentClass` (see coco_panoptic.json). It may leave out `num_classes` (one more than the largest id), and of a
    class `source_id` (equal to its id) and `color` (one that differs from its neighbours').

    Raises:
        ConfigError: the file is missing or not JSON, a field is missing, unknown or of another type, or the
            descriptor does not make sense. The message names the file.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        started = "" if os.path.isabs(path) else f" (working directory {os.getcwd()})"
        raise ConfigError(f"{path}: cannot read the data set descriptor: {error.strerror}{started}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: expected a data set descriptor in JSON, but {error}") from error
    try:
        fields = _checked(content, _FIELDS, "the descriptor")
        return descriptor_of_entries(entries=fields.pop("classes"), **fields)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def write_descriptor(path: str | pathlib.Path, descriptor: DatasetDescriptor) -> None:
    """Writes a descriptor file, one class a line; its folder is made if need be.

    Raises:
        ConfigError: the file cannot be written.
    """
    head = {name: getattr(descriptor, name) for name in _FIELDS if name != "classes"}
    lines = [json.dumps({name: getattr(c, name) for name in _CLASS_FIELDS}) for c in descriptor.classes]
    text = json.dumps(head, indent=2)[:-2] + ',\n  "classes": [\n    ' + ",\n    ".join(lines) + "\n  ]\n}\n"
    try:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot write the data set descriptor: {error.strerror}") from error


def descriptor_of_entries(name: str, entries: list[dict], **fields) -> DatasetDescriptor:
    """The descriptor whose `classes` are the entries as a descriptor file has them; `fields` are its other fields.

    Raises:
        ConfigError: as `read_descriptor`, without the file's name.
    """
    classes = [_checked(entry, _CLASS_FIELDS, f"entry {position} of classes") for position, entry in enumerate(entries)]
    largest_id = max((entry["id"] for entry in classes), default=0)
    return DatasetDescriptor(
        name=name,
        classes=tuple(_segment_class(entry, rank) for rank, entry in enumerate(classes)),
        **{"num_classes": largest_id + 1, **fields},
    )


def distinct_color(rank: int) -> tuple[int, int, int]:
    """The colour of the class at place `rank` of a list that names none; neighbours differ in hue and lightness."""
    hue = rank * _GOLDEN_RATIO % 1
    red_green_blue = colorsys.hls_to_rgb(hue, (0.5, 0.38, 0.64)[rank % 3], 0.65)
    return tuple(round(255 * channel) for channel in red_green_blue)


def _segment_class(entry: dict, rank: int) -> SegmentClass:
    filled = {"source_id": entry["id"], "color": distinct_color(rank), **entry}
    return SegmentClass(**{**filled, "color": tuple(filled["color"])})


def _checked(entry, types: dict[str, type], where: str) -> dict:
    """A copy of `entry` if it is a JSON object with these fields, each of its type; some may be left out."""
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected an object with {', '.join(types)}; came {entry!r}")
    for field in [*types, *entry]:
        if (field not in entry and field not in _OPTIONAL) or field not in types:
            state = "is missing" if field not in entry else "is unknown"
            names = [f"{name} (optional)" if name in _OPTIONAL else name for name in types]
            raise ConfigError(f"{where}: field {field!r} {state}; expected {', '.join(names)}")
    for field, expected in types.items():
        if field not in entry:
            continue
        # In Python True is an int, which in a descriptor it is not.
        if not isinstance(entry[field], expected) or (expected is int and isinstance(entry[field], bool)):
            raise ConfigError(f"{where}: field {field!r}: expected {expected.__name__}, came {entry[field]!r}")
    if not all(isinstance(channel, int) for channel in entry.get("color", ())):
        raise ConfigError(f"{where}: field 'color': expected three whole numbers, came {entry['color']!r}")
    return dict(entry)
