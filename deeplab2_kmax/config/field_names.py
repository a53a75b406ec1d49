"""What messages say about a field or an enum value that does not exist: which one was meant, and where it belongs."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from google.protobuf.descriptor import EnumDescriptor

from deeplab2_kmax.config import input_size
from deeplab2_kmax.dependency_lines import MessageKind
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.wording import did_you_mean, similar, some_of

# More places than this say nothing about which one was meant.
_PLACES_NAMED = 3
# Messages of model families that are not implemented, and their losses: nobody is sent there.
_OTHER_FAMILIES = (
    *("deeplab_v3", "deeplab_v3_plus", "panoptic_deeplab", "motion_deeplab", "vip_deeplab"),
    *("center_loss", "regression_loss", "motion_loss", "next_regression_loss", "depth_loss"),
)
_INPUT_SIZE = "it is no field but an override, which sets several fields: --override=input_size=641,641"


def unknown_field(message: MessageKind, name: str) -> str:
    """Says that a message has no field `name`, and what the user may have meant.

    That is the field of this name of another message, by its path; else the field with the most similar name, of this
    message or, by its path, of another one. Where there is none, the message's fields are listed.
    """
    told = f"{message.name} has no field {name!r}"
    if name == input_size.NAME:
        return f"{told}; {_INPUT_SIZE}"
    if paths := _paths().get(name):
        return f"{told}; it belongs at {some_of(paths, _PLACES_NAMED, separator=' or ')}"
    own = list(message.fields_by_name)
    # Where fields begin in overrides, so does input_size.
    extra = [input_size.NAME] if message is config_pb2.ExperimentOptions.DESCRIPTOR else []
    for alike in similar(name, [*own, *extra, *_paths()]):
        meant = [alike] if alike in (*own, *extra) else _paths()[alike]
        return f"{told}; did you mean {some_of(meant, _PLACES_NAMED, separator=' or ')}?"
    return f"{told}; it has: {', '.join(own)}"


def unknown_value(enum: EnumDescriptor, value: str) -> str:
    """What to expect of a field of an enum type that was given `value`."""
    names = list(enum.values_by_name)
    return f"one of {', '.join(names)}, got {value!r}{did_you_mean(value, names)}"


@functools.cache
def _paths() -> dict[str, list[str]]:
    """{name of a field: the paths from the top of a config where messages have it}."""
    paths: dict[str, list[str]] = {}
    for path in _walk(config_pb2.ExperimentOptions.DESCRIPTOR, ""):
        paths.setdefault(path.rpartition(".")[-1], []).append(path)
    return paths


def _walk(message: MessageKind, prefix: str) -> Iterator[str]:
    for field in message.fields:
        if field.name in _OTHER_FAMILIES:
            continue
        yield prefix + field.name
        if field.message_type is not None:
            yield from _walk(field.message_type, f"{prefix}{field.name}.")
