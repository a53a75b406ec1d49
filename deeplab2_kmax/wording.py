"""Phrases that messages share: how they count, list names, suggest one, and quote the error of another library."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterable, Sequence

# The columns of a terminal that notes and warnings fit into.
WIDTH = 80
# Of two names that have this share of their letters in common, one may be a mistyped form of the other.
_ALIKE = 0.6
# A shorter part of a name says nothing about which name is meant.
_SHORTEST_PART = 3
# A terminal acts on these, wherever they come from: C0 without tab and line break, and C1; and what turns the direction
# of writing, so that a name could look like another one.
_CONTROLS = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160)) if chr(number) not in "\n\t"}
_CONTROLS.update(
    {number: f"\\u{number:04x}" for number in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
)
# Halves of characters, without those that Python holds the bytes of file names in.
_NO_CHARACTER = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, to be quoted in a message of one line; its type if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def in_bytes(number: float) -> str:
    """A number of bytes in the unit that a reader takes in at once: "871 MB", "4.4 GB"."""
    units = ["TB", "GB", "MB", "kB", "bytes"]
    while number >= 999.5 and len(units) > 1:
        number /= 1000
        units.pop()
    return f"{number:.3g} {units[-1]}"


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


def shortened(text: str, longest: int) -> str:
    """The text itself, or its start and "..." where it has more than `longest` letters."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def quoted(value: object, longest: int = 100) -> str:
    """A value as Python writes it, to be shown as what was got; of long ones the start."""
    return shortened(repr(value), longest)


def similar(name: str, names: Iterable[str], at_most: int = 1) -> list[str]:
    """The names that somebody who typed `name` may have meant, the most similar first.

    Upper and lower case are the same here, and "-" and "_" do not count. Names that hold `name` as a part come last.

    Args:
        name: what was typed.
        names: what could have been typed.
        at_most: how many to return.
    """
    by_plain: dict[str, list[str]] = {}
    for known in names:
        by_plain.setdefault(_plain(known), []).append(known)
    plain = _plain(name)
    found = difflib.get_close_matches(plain, by_plain, n=at_most, cutoff=_ALIKE)
    if len(plain) >= _SHORTEST_PART:
        found += [known for known in by_plain if plain in known and known not in found]
    return [known for alike in found for known in by_plain[alike]][:at_most]


def did_you_mean(name: str, names: Iterable[str], at_most: int = 1) -> str:
    """The end of a message about a name that does not exist: "; did you mean 'coco_panoptic'?", or nothing.

    Args:
        name: what was typed.
        names: what could have been typed.
        at_most: how many names to suggest.
    """
    found = similar(name, names, at_most)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def wrapped(text: str, width: int = WIDTH, prefix: str = "", indent: str | None = None) -> str:
    """Breaks the lines of a text at spaces; words and paths that are too long stay whole.

    Args:
        text: may have several lines, each of which is wrapped by itself and keeps its indentation.
        width: the number of columns.
        prefix: put in front of the text, such as "note: ".
        indent: put in front of all other lines; None: blanks as wide as the prefix.
    """
    indent = " " * len(prefix) if indent is None else indent
    lines: list[str] = []
    for line in text.split("\n"):
        start = line[: len(line) - len(line.lstrip())]
        first = indent + start if lines else prefix + start
        # Lines of a list go on a little to the right of where they start.
        rest = indent + start + ("  " if start else "")
        lines += textwrap.wrap(
            line.strip(),
            width,
            initial_indent=first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines)


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")


def printable(text: str) -> str:
    """The text without what no terminal can show, or what it would act on.

    Bytes of file names in an older encoding become "\\xdf", control characters "\\x1b", and those that turn
    the direction of writing "\\u202e"; tabs and line breaks stay.
    """
    # Some halves of characters stand for bytes of file names; others, as JSON may have, stand for nothing.
    safe = _NO_CHARACTER.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
    decoded = safe.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return decoded.translate(_CONTROLS)


def one_line(name: str) -> str:
    """A name from data within a message: printable, and without tabs and line breaks, which become "\\t" and "\\n"."""
    return printable(name).replace("\n", "\\n").replace("\t", "\\t")


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 shard", "3,000 shards".

    Args:
        number: how many.
        noun: its singular.
        plural: of nouns that do not just add an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
