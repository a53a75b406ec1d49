"""Annotation files, read strictly: each field is of the type that is asked for, or is refused by its place in the file.

Python would take the text "0" for true, the last of two equal keys for the only one, and NaN for a number. Whatever a
tool or an editor has left in a file that is not what its format says is named here, as in
"export.json: annotations[3].bbox: expected a list of numbers, got 'none'".
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.wording import counted, did_you_mean, printable, shortened

_LONGEST_QUOTE = 60
_NEEDED = object()
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What archives begin with; many tools hand out their exports in one.
_ZIP = b"PK\x03\x04"
_NUMBERS = (int, float)
# A whole number that no float can hold is no length, place or id in any format.
_LIMIT = 2**63


class Entry:
    """An object of a JSON file, whose fields are read by type.

    All methods raise DataError, with the place of the field, if it is missing or of another type. `default` is what a
    field that is missing, or null, means; without a default it has to be there.

    Args:
        content: the object.
        where: its place, which messages begin with, such as "export.json: annotations[3]".
    """

    def __init__(self, content: Mapping[str, Any], where: str) -> None:
        self._content = content
        self.where = where

    def __contains__(self, field: str) -> bool:
        return self._content.get(field) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def place(self, field: str) -> str:
        """The words by which messages name a field."""
        return f"{self.where}.{field}" if self.where.endswith("]") else f"{self.where}: {field}"

    def raw(self, field: str, default: Any = _NEEDED) -> Any:
        """The value of a field, of any type."""
        value = self._content.get(field)
        if value is not None:
            return value
        if default is _NEEDED:
            meant = did_you_mean(field, [name for name in self._content if name != field])
            raise DataError(f"{self.where}: expected the field {field}, which is missing or null{meant}")
        return default

    def text(self, field: str, default: Any = _NEEDED) -> Any:
        """A field that holds text."""
        return self._of_type(field, str, "text", default)

    def name(self, field: str, default: Any = _NEEDED) -> Any:
        """A field that holds a name, see `as_name`."""
        value = self.text(field, default)
        return value if value is default else as_name(value, self.place(field))

    def number(self, field: str, default: Any = _NEEDED) -> Any:
        """A field that holds a finite number."""
        value = self.raw(field, default)
        return value if value is default else as_number(value, self.place(field))

    def whole(self, field: str, default: Any = _NEEDED) -> Any:
        """A field that holds a whole number; 7.0 is one, true and "7" are not."""
        value = self.raw(field, default)
        if value is default:
            return value
        number = as_number(value, self.place(field), "a whole number")
        if number != int(number):
            raise DataError(f"{self.place(field)}: expected a whole number, got {quoted(value)}")
        return int(number)

    def flag(self, field: str, default: Any = _NEEDED) -> Any:
        """A field that holds 0, 1, false or true."""
        value = self.raw(field, default)
        if value is default:
            return value
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise DataError(f"{self.place(field)}: expected 0, 1, true or false, got {quoted(value)}")
        return bool(value)

    def items(self, field: str, default: Any = _NEEDED) -> Any:
        """A field that holds a list, of anything."""
        return self._of_type(field, list, "a list", default)

    def numbers(self, field: str, default: Any = _NEEDED) -> Any:
        """A field that holds a list of finite numbers."""
        values = self.items(field, default)
        return values if values is default else as_numbers(values, self.place(field))

    def points(self, field: str) -> list[float]:
        """A field that holds a list of points [x, y], as the list x, y, x, y, ... of finite numbers."""
        return as_points(self.items(field), self.place(field))

    def entry(self, field: str, default: Any = _NEEDED) -> Any:
        """A field that holds an object, as an `Entry`."""
        value = self._of_type(field, dict, "an object", default)
        return value if value is default else Entry(value, self.place(field))

    def entries(self, field: str, default: Any = _NEEDED) -> Any:
        """A field that holds a list of objects, as a list of `Entry`."""
        values = self.items(field, default)
        return values if values is default else as_entries(values, self.place(field))

    def _of_type(self, field: str, kind: type, words: str, default: Any) -> Any:
        value = self.raw(field, default)
        if value is not default and not isinstance(value, kind):
            raise DataError(f"{self.place(field)}: expected {words}, got {quoted(value)}")
        return value


def load_json(path: str) -> Any:
    """Reads a JSON file.

    Returns:
        What it holds: an object as `Entry`, or a list of anything.

    Raises:
        DataError: the file cannot be read, is not JSON in UTF-8, has a key twice in an object, or a number that is not
            finite.
    """
    content = _parsed(path)
    if isinstance(content, dict):
        return Entry(content, path)
    if isinstance(content, list):
        return content
    raise DataError(f"{path}: expected a JSON object or list, got {quoted(content)}")


def load_json_object(path: str) -> Entry:
    """Reads a JSON file that holds an object; raises DataError as `load_json`."""
    content = load_json(path)
    if not isinstance(content, Entry):
        raise DataError(f"{path}: expected a JSON object, got a list")
    return content


def as_entries(values: Sequence[Any], where: str) -> list[Entry]:
    """A list of JSON objects, each as an `Entry` that knows its place in the list at `where`."""
    for place, value in enumerate(values):
        if not isinstance(value, dict):
            raise DataError(f"{where}[{place}]: expected an object, got {quoted(value)}")
    return [Entry(value, f"{where}[{place}]") for place, value in enumerate(values)]


def as_name(value: Any, where: str) -> str:
    """Text without the spaces around it; raises DataError if it is blank, has a line break in it, or is no text."""
    if not isinstance(value, str) or not value.strip() or _CONTROL.search(value.strip()):
        raise DataError(f"{where}: expected a name, got {quoted(value)}")
    return value.strip()


def as_number(value: Any, where: str, words: str = "a number") -> float:
    """A finite number; raises DataError for anything else."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LIMIT
    if not is_number or not math.isfinite(value):
        raise DataError(f"{where}: expected {words}, got {quoted(value)}")
    return float(value) if isinstance(value, float) else value


def as_numbers(values: Any, where: str) -> list[float]:
    """A list of finite numbers; raises DataError for anything else."""
    if not isinstance(values, list):
        raise DataError(f"{where}: expected a list of numbers, got {quoted(values)}")
    # Outlines hold millions of numbers. Comparing them takes a quarter of the time of naming the place of each.
    if all(type(value) in _NUMBERS and -_LIMIT < value < _LIMIT for value in values):
        return values
    return [as_number(value, f"{where}[{place}]") for place, value in enumerate(values)]


def as_points(values: Any, where: str) -> list[float]:
    """A list of points [x, y], as the list x, y, x, y, ... of finite numbers; raises DataError for anything else."""
    if not isinstance(values, list):
        raise DataError(f"{where}: expected a list of points, got {quoted(values)}")
    found: list[float] = []
    for place, point in enumerate(values):
        numbers = as_numbers(point, f"{where}[{place}]")
        if len(numbers) != 2:
            raise DataError(f"{where}[{place}]: expected x and y of a point, got {quoted(point)}")
        found += numbers
    return found


def as_bytes(text: str, where: str, words: str) -> bytes:
    """The bytes that a text in base64 stands for; raises DataError, in which `words` say what they are, for others."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(
            f"{where}: expected {words} in base64, got {counted(len(text), 'character')} that are broken or cut off"
        ) from error


def quoted(value: Any) -> str:
    """A value of a file as a message shows it, in the way that JSON writes it and shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return printable(shortened(text, _LONGEST_QUOTE))


def load_yaml_object(path: str) -> Entry:
    """Reads a YAML file that holds an object; its keys may be whole numbers, too.

    Raises:
        DataError: the file cannot be read, is not YAML in UTF-8, holds no object, or has a key twice in an object.
    """
    text = read_annotation_text(path)
    try:
        content = yaml.load(text, Loader=_loader(path))
    except DataError:
        raise
    except yaml.MarkedYAMLError as error:
        place = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DataError(f"{path}: expected YAML, but it is cut off or broken{place}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected YAML, got characters, dates or nesting that are none of it") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a YAML object, got {quoted(content)}")
    return Entry(content, path)


def _loader(path: str) -> type[yaml.SafeLoader]:
    """YAML's loader, which refuses keys that come twice instead of taking the last."""

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            repeated = [key for key in keys if isinstance(key, str) and keys.count(key) > 1]
            if repeated:
                raise DataError(f"{path}: expected keys that differ in an object, got {quoted(repeated[0])} twice")
            return super().construct_mapping(node, deep)

    return Loader


def read_annotation_text(path: str, may_be_empty: bool = False) -> str:
    """The text of an annotation file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        may_be_empty: whether an empty file says something in this format.

    Raises:
        DataError: the file cannot be read, is empty or an archive, or is not in UTF-8.
    """
    try:
        content = files.read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotations: {error.strerror}") from error
    if not content.strip() and not may_be_empty:
        raise DataError(f"{path}: expected annotations, got an empty file")
    if content.startswith(_ZIP):
        raise DataError(f"{path}: expected annotations, got a ZIP archive; unpack it and give the file in it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected text in UTF-8, got the byte {content[error.start]:#04x} at byte {error.start}; save the"
            " file in UTF-8, or export it again"
        ) from error


def _parsed(path: str) -> Any:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if (repeated := files.repeated_key(found)) is not None:
            raise DataError(f"{path}: expected keys that differ in an object, got {quoted(repeated)} twice")
        return dict(found)

    def constant(name: str) -> float:
        raise DataError(f"{path}: expected finite numbers, got {name}")

    text = read_annotation_text(path)
    try:
        content = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
        # JSON can write one half of a character such as an emoji, which no file or terminal takes.
        if "\\ud" in text.lower():
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise DataError(f"{path}: expected whole characters, got {half}, which is half of one") from error
    except DataError:
        raise  # It is a ValueError too.
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}: expected JSON, but it is cut off or broken at {place}") from error
    # A number of thousands of digits, or thousands of brackets within each other.
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON annotations, got a number or nesting beyond all measure") from error
