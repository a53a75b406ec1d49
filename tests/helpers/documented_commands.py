"""The commands of README and docs: those in blocks of code, also within lists, and those within sentences."""

from __future__ import annotations

import pathlib
import re
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^([ ]*)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")
# How a line begins that somebody is meant to type, rather than to read.
_TYPED = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\S*bin/)?"
    r"(?:(?:deeplab2-kmax|python[\d.]*|pip|make|docker|tensorboard|source|export|pytest) \S|\S*bin/\w)|--override "
)


class Command(NamedTuple):
    """A command as the page `page` shows it; `is_whole` unless it stands within a sentence, which may shorten it."""

    page: str
    line: str
    is_whole: bool

    def __str__(self) -> str:
        return f"{self.page}: {self.line}"


def documented_commands() -> list[Command]:
    """All commands, in the order of the pages."""
    return [command for page in PAGES for command in commands_of(str(page.relative_to(ROOT)), page.read_text())]


def commands_of(page: str, text: str) -> list[Command]:
    """The commands of one page of Markdown; of a block that is marked as `sh`, every line is one."""
    found = []
    for indent, language, block in _BLOCK.findall(text):
        if language not in ("", "sh", "bash"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            typed = re.sub(r"\s+#.*", "", line).strip()
            if typed and (language or (line[len(indent) : len(indent) + 1] != " " and _TYPED.match(typed))):
                found.append(Command(page, " ".join(typed.split()), True))
    for span in _INLINE.findall(_BLOCK.sub("", text)):
        typed = " ".join(span.split())
        if _TYPED.match(typed):
            found.append(Command(page, typed, False))
    return found
