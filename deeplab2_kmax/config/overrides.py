"""Overrides from the command line: `field.sub_field=value` strings."""

from __future__ import annotations

from google.protobuf import descriptor, text_format
from google.protobuf.message import Message

from deeplab2_kmax.config import input_size
from deeplab2_kmax.config.field_names import unknown_field, unknown_value
from deeplab2_kmax.config.notes import Note
from deeplab2_kmax.dependency_lines import Field, is_repeated
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.wording import quoted

_TYPE_NAMES = {
    descriptor.FieldDescriptor.TYPE_BOOL: "true or false",
    descriptor.FieldDescriptor.TYPE_FLOAT: "a number",
    descriptor.FieldDescriptor.TYPE_INT32: "an integer",
    descriptor.FieldDescriptor.TYPE_INT64: "an integer",
}


def apply_override(config: config_pb2.ExperimentOptions, override: str) -> list[Note]:
    """Sets one field of `config`, in place; or, by `input_size`, all that depend on the size of the images.

    Args:
        config: the config to change.
        override: "field.sub_field=value"; a repeated field takes "1,2,3", which replaces all of its values, and "" to
            empty it. Strings are written without quotes. "input_size=height,width": see `input_size`.

    Returns:
        What the user should know about it: nothing where a single field was set.

    Raises:
        ConfigError: there is no such field, it has sub-fields, or the value is not of its type.
    """
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"override {quoted(override)}: expected field.sub_field=value")
    if path.strip() == input_size.NAME:
        return [Note(input_size.set_input_size(config, value))]
    message: Message = config
    *parents, leaf = path.strip().split(".")
    for name in parents:
        field = _field(message, name, override)
        if field.message_type is None or is_repeated(field):
            raise ConfigError(f"override {quoted(override)}: {name} has no sub-fields")
        message = getattr(message, name)
    field = _field(message, leaf, override)
    if field.message_type is not None:
        raise ConfigError(
            f"override {quoted(override)}: {leaf} is a {field.message_type.name}; set one of its fields:"
            f" {', '.join(field.message_type.fields_by_name)}"
        )
    _assign(message, field, value.strip(), override)
    return []


def _field(message: Message, name: str, override: str) -> Field:
    fields = message.DESCRIPTOR.fields_by_name
    if name not in fields:
        raise ConfigError(f"override {quoted(override)}: {unknown_field(message.DESCRIPTOR, name)}")
    return fields[name]


def _assign(message: Message, field: Field, value: str, override: str) -> None:
    """Replaces the values of a field that has no sub-fields."""
    repeated = is_repeated(field)
    values = [part.strip() for part in value.split(",") if part.strip()] if repeated else [value]
    message.ClearField(field.name)
    # Left to the text format, which knows how numbers, booleans and enum values are written and which ranges they have.
    is_text = field.type == field.TYPE_STRING
    lines = [f"{field.name}: {_quote(item) if is_text else item}" for item in values]
    try:
        text_format.Merge("\n".join(lines), message)
    except text_format.ParseError as error:
        if field.enum_type is not None:
            expected = unknown_value(field.enum_type, value)
        else:
            expected = f"{_TYPE_NAMES.get(field.type, 'another type')}, got {quoted(value)}"
        raise ConfigError(f"override {quoted(override)}: {field.name} expects {expected}") from error


def _quote(value: str) -> str:
    """`value` as a quoted string of the text format."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
