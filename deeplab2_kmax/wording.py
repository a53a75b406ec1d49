"""Phrases that messages share: how they count, how they list names, and what they keep of another library's error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a message of one line; the error's type where it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def some_of(names: Iterable[object], at_most: int, separator: str = ", ") -> str:
    """The first `at_most` names, and how many more there are: "a, b and 3 more"."""
    named: Sequence[str] = [str(name) for name in names]
    more = len(named) - at_most
    if more <= 0:
        return separator.join(named)
    return f"{separator.join(named[:at_most])}{separator if chr(10) in separator else ' '}and {more} more"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 shard", "3 shards"; `plural` for nouns that do not just add an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
