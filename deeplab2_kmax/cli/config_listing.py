"""What `deeplab2-kmax config` prints: a config in full, or the differences of two configs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from deeplab2_kmax.config import (
    base_files,
    config_to_text,
    differences,
    find_config,
    load_config,
    load_with_notes,
    unsupported_reason,
)
from deeplab2_kmax.config.placeholders import placeholders
from deeplab2_kmax.wording import wrapped

# Of the comment at the head, which "# " stands before.
_WIDTH = 78


def config_listing(path: str, overrides: Sequence[str] = ()) -> str:
    """A config in full, as text that `load_config` reads; a comment at its head says what went into it.

    Args:
        path: file or name of the config.
        overrides: "field=value" each.

    Raises:
        ConfigError: the config cannot be read.
    """
    config, notes = load_with_notes(path, overrides)
    told = [note.text for note in notes]
    unfilled = [f"{field} {name}" for field, name in placeholders(config).items()]
    head = [find_config(path)]
    for title, items in (
        ("on top of", base_files(path)),
        ("with", overrides),
        ("notes", told),
        ("to fill in", unfilled),
    ):
        if items:
            head.append(f"{title}:")
            head += [f"  {line}" for item in items for line in wrapped(item, _WIDTH - 2, indent="  ").splitlines()]
    if reason := unsupported_reason(config):
        head += [*wrapped(f"cannot be built: {reason}", _WIDTH, indent="  ").splitlines()]
    return "".join(f"# {line}\n" for line in head) + config_to_text(config).rstrip()


def difference_listing(path: str, other_path: str, overrides: Sequence[str] = ()) -> str:
    """The fields that differ between two configs, one a line, grouped by the message that they belong to.

    Args:
        path: file or name of the first config.
        other_path: file or name of the second config.
        overrides: "field=value" each; they change the second config.

    Raises:
        ConfigError: one of the configs cannot be read.
    """
    found = differences(load_config(path), load_config(other_path, overrides))
    if not found:
        return f"{path} and {other_path} say the same"
    lines = [f"{path} -> {other_path}"]
    by_message = itertools.groupby(sorted(found.items(), key=_message_of), key=_message_of)
    for message, fields in by_message:
        changes = {field.rsplit(".", 1)[-1]: values for field, values in fields}
        width = max(map(len, changes))
        lines += [message] if message else []
        indent = "    " if message else ""
        lines += [f"{indent}{name:{width}}  {value} -> {other}" for name, (value, other) in changes.items()]
    return "\n".join(lines)


def _message_of(field: tuple[str, object]) -> str:
    """The path of the message that a (path of a field, values) pair belongs to; "" at the top."""
    return field[0].rpartition(".")[0]
