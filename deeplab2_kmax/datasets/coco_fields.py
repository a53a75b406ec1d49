"""Fields of COCO's JSON files, which people write by hand and with tools of all kinds, read strictly.

A field that Python would take for something else, such as the text "0", which is true, is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deeplab2_kmax.errors import DataError


def whole_number(entry: Mapping[str, Any], field: str, where: str) -> int:
    """A field that holds a whole number; 7.0 is one, True and "7" are not.

    Args:
        entry: a JSON object that has the field.
        field: its name.
        where: what the message of an error begins with.

    Raises:
        DataError: it holds something else.
    """
    value = entry[field]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise DataError(f"{where}: expected a whole number as {field} in the JSON, got {value!r}")
    return int(value)


def flag(entry: Mapping[str, Any], field: str, where: str, default: bool | None = None) -> bool:
    """A field that holds a flag: 0, 1, true or false.

    Args:
        entry: a JSON object.
        field: its name.
        where: what the message of an error begins with.
        default: what a field that is missing means; None: it has to be there.

    Raises:
        DataError: the field is missing, or holds something else, such as a text.
    """
    if field not in entry:
        if default is None:
            raise DataError(f"{where}: expected the field {field}, 0 or 1, in the JSON; it is missing")
        return default
    value = entry[field]
    if not isinstance(value, (bool, int, float)) or value not in (0, 1):
        raise DataError(f"{where}: expected 0 or 1 as {field} in the JSON, got {value!r}")
    return bool(value)
