"""Reads data set descriptors: JSON files beside this one, or one of the user's own."""

from __future__ import annotations

import functools
import json
import pathlib

from deeplab2_kmax.datasets.descriptor import DatasetDescriptor, SegmentClass
from deeplab2_kmax.errors import ConfigError

_FOLDER = pathlib.Path(__file__).parent
_FIELDS = {"name": str, "num_classes": int, "ignore_label": int, "label_divisor": int, "classes": list}
_CLASS_FIELDS = {"id": int, "source_id": int, "is_thing": bool, "color": list, "name": str}


def known_datasets() -> tuple[str, ...]:
    """Names `load_dataset` knows, in alphabetical order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


@functools.cache
def load_dataset(name: str) -> DatasetDescriptor:
    """The descriptor of a built-in data set, or of the JSON file `name` where it ends in ".json".

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
    `SegmentClass` (see coco_panoptic.json).

    Raises:
        ConfigError: the file is missing or not JSON, a field is missing, unknown or of another type, or the
            descriptor does not make sense. The message names the file.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the data set descriptor: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: expected a data set descriptor in JSON, but {error}") from error
    try:
        fields = _checked(content, _FIELDS, "the descriptor")
        classes = [
            _checked(entry, _CLASS_FIELDS, f"entry {position} of classes")
            for position, entry in enumerate(fields.pop("classes"))
        ]
        return DatasetDescriptor(
            classes=tuple(SegmentClass(**{**entry, "color": tuple(entry["color"])}) for entry in classes), **fields
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _checked(entry, types: dict[str, type], where: str) -> dict:
    """A copy of `entry` if it is a JSON object with exactly these fields, each of its type."""
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: expected an object with {', '.join(types)}; came {entry!r}")
    for field in [*types, *entry]:
        if field not in entry or field not in types:
            state = "is missing" if field not in entry else "is unknown"
            raise ConfigError(f"{where}: field {field!r} {state}; expected exactly {', '.join(types)}")
    for field, expected in types.items():
        # In Python True is an int, which in a descriptor it is not.
        if not isinstance(entry[field], expected) or (expected is int and isinstance(entry[field], bool)):
            raise ConfigError(f"{where}: field {field!r}: expected {expected.__name__}, came {entry[field]!r}")
    if "color" in types and not all(isinstance(channel, int) for channel in entry["color"]):
        raise ConfigError(f"{where}: field 'color': expected three whole numbers, came {entry['color']!r}")
    return dict(entry)
