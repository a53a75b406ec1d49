"""Reads files of COCO annotations one annotation at a time, as those of a large set take gigabytes as Python objects.

An annotation stays in memory as the piece of text that it is in the file, a fifth of what its objects take, and is
parsed again when its image is scored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from deeplab2_kmax import files
from deeplab2_kmax.errors import UserError

_Kept = TypeVar("_Kept")
_KEY = "annotations"
_BLANKS = " \t\n\r"


def read_annotation_file(
    path: files.StrPath, keep: Callable[[int, Any, str], _Kept]
) -> tuple[list[_Kept] | None, dict[str, Any]]:
    """Reads a JSON object with a list "annotations".

    Args:
        path: of the file, local or remote.
        keep: called with the place, the content and the text of each annotation; returns what is to be kept of it.

    Returns:
        What was kept of each annotation, None if there is no such list; the other fields of the object, none if it is
        something else.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON; the message says what is wrong, as that of `files.read_json`.
    """
    try:
        return _Reader(files.read_text(path)).read(keep)
    except UserError:  # What `keep` refuses.
        raise
    except (ValueError, RecursionError):
        files.read_json(path)  # Says where it is broken.
        return None, {}  # It is whole, but no object.


class _Reader:
    """Walks through the fields of an object; the values are decoded by Python's json."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._decode = json.JSONDecoder().raw_decode
        self._place = 0

    def read(self, keep: Callable[[int, Any, str], _Kept]) -> tuple[list[_Kept] | None, dict[str, Any]]:
        kept: list[_Kept] | None = None
        others: dict[str, Any] = {}
        is_first = True
        self._take("{")
        while not self._is_next("}"):
            if not is_first:
                self._take(",")
            is_first = False
            key, _ = self._value()
            if not isinstance(key, str):
                raise ValueError("a key is no text")
            self._take(":")
            # Of a key that comes twice the last counts, as for Python.
            if key == _KEY:
                kept = self._list(keep) if self._is_next("[", stay=True) else None
            if key != _KEY or kept is None:
                others[key], _ = self._value()
        self._skip_blanks()
        if self._place < len(self._text):
            raise ValueError("something follows the object")
        return kept, others

    def _list(self, keep: Callable[[int, Any, str], _Kept]) -> list[_Kept]:
        kept: list[_Kept] = []
        self._take("[")
        while not self._is_next("]"):
            if kept:
                self._take(",")
            value, text = self._value()
            kept.append(keep(len(kept), value, text))
        return kept

    def _value(self) -> tuple[Any, str]:
        """The next value, and its text."""
        self._skip_blanks()
        start = self._place
        value, self._place = self._decode(self._text, start)
        return value, self._text[start : self._place]

    def _is_next(self, sign: str, stay: bool = False) -> bool:
        """Whether a sign comes next; if so, it is passed over unless `stay`."""
        self._skip_blanks()
        found = self._text.startswith(sign, self._place)
        if found and not stay:
            self._place += 1
        return found

    def _take(self, sign: str) -> None:
        if not self._is_next(sign):
            raise ValueError(f"expected {sign}")

    def _skip_blanks(self) -> None:
        while self._place < len(self._text) and self._text[self._place] in _BLANKS:
            self._place += 1
