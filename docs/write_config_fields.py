"""Writes docs/config_fields.md, the list of all fields of a config, from the *.proto files.

Call it as `python docs/write_config_fields.py`; it needs grpcio-tools<1.63. A test fails if the page is out of date.
"""

import pathlib
import runpy
import tempfile

from google.protobuf import descriptor_pb2

from deeplab2_kmax.config.value_ranges import is_number, range_in_words
from deeplab2_kmax.dependency_lines import is_repeated
from deeplab2_kmax.protos import config_pb2

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE / "config_fields.md"
HEAD = """# All fields of a config

Written by `docs/write_config_fields.py` from [protos/](../protos). Numbers outside of their range are refused by name
when a config is loaded. Fields whose number is 1000 or more are this project's own; all others are DeepLab2's.
"""


def comments() -> dict[str, str]:
    """{full name of a message or field: the comment in front of it}."""
    run_protoc = runpy.run_path(str(HERE.parent / "protos/generate.py"))["run_protoc"]
    with tempfile.TemporaryDirectory() as root:
        output = pathlib.Path(root) / "descriptors"
        run_protoc(pathlib.Path(root), "--include_source_info", f"--descriptor_set_out={output}")
        found = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes())
    return {name: text for file in found.file for name, text in _comments_of(file)}


def _comments_of(file):
    for location in file.source_code_info.location:
        if location.leading_comments:
            name = _name_at(file, location.path)
            if name:
                yield name, " ".join(location.leading_comments.split())


def _name_at(file, path):
    """The full name of the message or field that a path of protoc's source info leads to; None for anything else."""
    at, name = file, file.package
    for kind, index in zip(path[::2], path[1::2]):
        field = at.DESCRIPTOR.fields_by_number.get(kind)
        if field is None or field.name not in ("message_type", "nested_type", "field", "oneof_decl"):
            return None
        at = getattr(at, field.name)[index]
        name += f".{at.name}"
    return name


def page() -> str:
    """The text of the page."""
    known = comments()
    parts = [HEAD]
    for message, path in _messages(config_pb2.ExperimentOptions.DESCRIPTOR, "", set()):
        parts.append(f"\n## {path or 'experiment'}\n")
        if text := known.get(message.full_name):
            parts.append(f"\n{text}\n")
        parts.append("\n| field | values | default | |\n|---|---|---|---|\n")
        parts += [_row(field, known.get(field.full_name, "")) for field in message.fields]
    return "".join(parts)


def _messages(message, path, seen):
    """Yields (message, path of the first field that holds it) of a message and all below it."""
    yield message, path
    seen.add(message.full_name)
    for field in message.fields:
        if field.message_type is not None and field.message_type.full_name not in seen:
            yield from _messages(field.message_type, f"{path}.{field.name}".lstrip("."), seen)


def _row(field, comment):
    default = str(field.default_value) if field.has_default_value else ""
    if field.enum_type is not None:
        default = field.enum_type.values_by_number[field.default_value].name
    elif field.cpp_type == field.CPPTYPE_FLOAT and field.has_default_value:
        default = f"{field.default_value:g}"
    elif field.cpp_type == field.CPPTYPE_BOOL:
        default = default.lower()
    many = "; a list" if is_repeated(field) else ""
    text = comment.replace("|", "\\|")
    return f"| `{field.name}` | {_values(field)}{many} | {f'`{default}`' if default else ''} | {text} |\n"


def _values(field):
    if field.message_type is not None:
        return "a message"
    if field.enum_type is not None:
        return ", ".join(f"`{value.name}`" for value in field.enum_type.values)
    if is_number(field):
        return range_in_words(field)
    return "`true`, `false`" if field.cpp_type == field.CPPTYPE_BOOL else "text"


if __name__ == "__main__":
    PAGE.write_text(page())
