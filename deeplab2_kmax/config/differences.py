"""Compares two configs field by field."""

from __future__ import annotations

import io

from google.protobuf import text_format
from google.protobuf.message import Message

from deeplab2_kmax.dependency_lines import Field, is_repeated
from deeplab2_kmax.protos import config_pb2

UNSET = "unset"


def differences(
    config: config_pb2.ExperimentOptions, other: config_pb2.ExperimentOptions
) -> dict[str, tuple[str, str]]:
    """Lists the fields whose value in effect differs; a value that equals the default counts as the default.

    Returns:
        {field path: (value in `config`, value in `other`)}. Values are written as in the text format. "unset" stands
        for a field that has neither a value nor a default, or that lies in a message which is not there.
    """
    values, other_values = field_values(config), field_values(other)
    return {
        path: (values.get(path, UNSET), other_values.get(path, UNSET))
        for path in {**values, **other_values}
        if values.get(path, UNSET) != other_values.get(path, UNSET)
    }


def field_values(message: Message, prefix: str = "") -> dict[str, str]:
    """{field path: value as text} of the fields that have a value or a default, inside the messages that are set.

    Args:
        message: a config, or a message within one.
        prefix: put in front of every path.
    """
    values: dict[str, str] = {}
    for field in message.DESCRIPTOR.fields:
        path = prefix + field.name
        if is_repeated(field):
            if value := getattr(message, field.name):
                values[path] = f"[{', '.join(_as_text(item, field) for item in value)}]"
        elif field.message_type is not None:
            if message.HasField(field.name):
                values.update(field_values(getattr(message, field.name), f"{path}."))
        elif message.HasField(field.name) or field.has_default_value:
            values[path] = _as_text(getattr(message, field.name), field)
    return values


def _as_text(value: object, field: Field) -> str:
    """One value of a field; of a repeated field, one of its items."""
    if isinstance(value, Message):
        return f"{{ {text_format.MessageToString(value, as_one_line=True)} }}"
    text = io.StringIO()
    # Writes enum values by name, strings quoted, and floats as short as float32 allows (0.1, not 0.10000000149).
    text_format.PrintFieldValue(field, value, text, as_utf8=True)
    return text.getvalue()
