"""Phrases that messages share: how they count, list names, and quote the error of another library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def first_line(error: BaseException) -> str:
    """The first line of an error's text, to be quoted in a message of one line; its type if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def some_of(names: Iterable[object], at_most: int, separator: str = ", ") -> str:
    """Lists the first names and says how many more there are: "a, b and 3 more".

    Args:
        names: of any type; shown as text.
        at_most: how many to list.
        separator: between names; may hold a line break, and "and 3 more" then stands on a line of its own.
    """
    named: Sequence[str] = [str(name) for name in names]
    more = len(named) - at_most
    if more <= 0:
        return separator.join(named)
    before_rest = separator if "\n" in separator else " "
    return f"{separator.join(named[:at_most])}{before_rest}and {more} more"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 shard", "3,000 shards".

    Args:
        number: how many.
        noun: its singular.
        plural: of nouns that do not just add an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
