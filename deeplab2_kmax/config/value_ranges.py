"""The values that the number fields of a config may have: declared in the *.proto files, checked here for all of them.

What depends on several fields, or on the names of things, stands in the other modules of rules (see `checks`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from deeplab2_kmax.dependency_lines import Field, is_repeated
from deeplab2_kmax.protos import value_range_pb2
from deeplab2_kmax.wording import quoted

_WHOLE = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
_NUMBERS = (*_WHOLE, FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


def range_problems(message: Message, where: str = "") -> list[str]:
    """The values that a field cannot have, in a message and those in it.

    These are numbers that are not finite, or outside of the range that the field declares, and texts with a NUL, which
    no path and no name can have.

    Defaults are within their ranges, so that only fields that are set are looked at.

    Args:
        message: a config, or a message within one.
        where: path of the message in the config; "" for the config itself.

    Returns:
        A sentence for each, which starts with the path of the field.
    """
    problems: list[str] = []
    for field, content in message.ListFields():
        path = f"{where}.{field.name}" if where else field.name
        values = list(content) if is_repeated(field) else [content]
        for place, value in enumerate(values):
            own = f"{path}[{place}]" if is_repeated(field) else path
            if field.message_type is not None:
                problems += range_problems(value, own)
            elif is_number(field) and not _is_within(value, declared_range(field)):
                problems.append(f"{own}: expected {range_in_words(field)}, got {_shown(value)}")
            elif isinstance(value, str) and "\0" in value:
                problems.append(f"{own}: expected text without the character NUL, got {quoted(value)}")
    return problems


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def is_number(field: Field) -> bool:
    """Whether the values of a field are numbers."""
    return field.cpp_type in _NUMBERS


def declared_range(field: Field) -> value_range_pb2.ValueRange:
    """What the *.proto file says of the values of a number field."""
    return field.GetOptions().Extensions[value_range_pb2.range]


def range_in_words(field: Field) -> str:
    """The values that a number field may have, such as "a whole number of at least 1 (steps)"."""
    bounds = declared_range(field)
    words = "a whole number" if field.cpp_type in _WHOLE else "a finite number"
    if limits := " and ".join(_limits(bounds)):
        words += f", {limits}"
    if bounds.HasField("besides"):
        words += f", or {bounds.besides:g}"
    return f"{words} ({bounds.unit})" if bounds.unit else words


def _limits(bounds: value_range_pb2.ValueRange) -> Iterator[str]:
    for name, words in (("minimum", "at least"), ("above", "above"), ("maximum", "at most"), ("below", "below")):
        if bounds.HasField(name):
            # Not by "g", which would round the largest seed.
            yield f"{words} {getattr(bounds, name):.12g}"


def _is_within(value: float, bounds: value_range_pb2.ValueRange) -> bool:
    if not math.isfinite(value):
        return False
    if bounds.HasField("besides") and value == bounds.besides:
        return True
    return not (
        (bounds.HasField("minimum") and value < bounds.minimum)
        or (bounds.HasField("above") and value <= bounds.above)
        or (bounds.HasField("maximum") and value > bounds.maximum)
        or (bounds.HasField("below") and value >= bounds.below)
    )
