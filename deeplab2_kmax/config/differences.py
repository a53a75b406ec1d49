"""What one config says otherwise than another, field by field."""

from __future__ import annotations

import io

from google.protobuf import text_format

from deeplab2_kmax.protos import config_pb2

UNSET = "unset"


def differences(
    config: config_pb2.ExperimentOptions, other: config_pb2.ExperimentOptions
) -> dict[str, tuple[str, str]]:
    """{field path: (value in `config`, value in `other`)} of every field whose value in effect differs.

    Values are as the text format writes them; "unset" is a field without value and default, or in a message that is not
    there.
    """
    values, other_values = field_values(config), field_values(other)
    return {
        path: (values.get(path, UNSET), other_values.get(path, UNSET))
        for path in {**values, **other_values}
        if values.get(path, UNSET) != other_values.get(path, UNSET)
    }


def field_values(message, prefix: str = "") -> dict[str, str]:
    """{field path: value as text} of the fields that have a value or a default, inside the messages that are set."""
    values = {}
    for field in message.DESCRIPTOR.fields:
        path = prefix + field.name
        if field.label == field.LABEL_REPEATED:
            if value := getattr(message, field.name):
                values[path] = f"[{', '.join(_as_text(item, field) for item in value)}]"
        elif field.message_type is not None:
            if message.HasField(field.name):
                values.update(field_values(getattr(message, field.name), f"{path}."))
        elif message.HasField(field.name) or field.has_default_value:
            values[path] = _as_text(getattr(message, field.name), field)
    return values


def _as_text(value, field) -> str:
    if field.message_type is not None:
        return f"{{ {text_format.MessageToString(value, as_one_line=True)} }}"
    text = io.StringIO()
    text_format.PrintFieldValue(field, value, text, as_utf8=True)
    return text.getvalue()
