"""Configs that build on others: `base: "../bases/coco_1281.textproto"` reads that file first.

A base may have bases of its own. A base that is reached in two ways is read once, at the first place: read again at the
second, it would take back what files in between have changed.
"""

from __future__ import annotations

from google.protobuf.message import Message

from deeplab2_kmax import files
from deeplab2_kmax.config.named import find_config
from deeplab2_kmax.config.parsing import parse_config
from deeplab2_kmax.dependency_lines import is_repeated
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.wording import quoted, some_of

# Each is a call within the call for the one before.
_MOST_BASES = 100
_NAMED_AT_MOST = 5


def read_with_bases(path: str) -> config_pb2.ExperimentOptions:
    """Merges the config at `path` with its bases.

    What a file sets replaces what its bases set: single values, and lists as a whole. Sub-messages are merged field by
    field.

    Args:
        path: a file, or the name of a shipped config (see `named.find_config`).

    Returns:
        A config that stands alone: its field `base` is empty.

    Raises:
        ConfigError: a file cannot be read, is not a config, or is its own base; names the files that led to it.
    """
    merged = config_pb2.ExperimentOptions()
    for _, config in _in_reading_order(find_config(path), (), set()):
        replace_fields(merged, config)
    merged.ClearField("base")
    return merged


def base_files(path: str) -> list[str]:
    """The files that the config at `path` builds on, bases of bases included, in reading order."""
    return [file for file, _ in _in_reading_order(find_config(path), (), set())][:-1]


def _in_reading_order(
    path: str, led_here: tuple[str, ...], seen: set[str]
) -> list[tuple[str, config_pb2.ExperimentOptions]]:
    """Reads `path` and, before it, its bases.

    Args:
        path: the file to read.
        led_here: the files whose bases led to `path`, outermost first.
        seen: identities of the files read so far; files that are read now are added.

    Returns:
        (file, its own config) in the order in which they are to be merged.
    """
    if len(led_here) > _MOST_BASES:
        raise ConfigError(
            f"{led_here[0]}: expected at most {_MOST_BASES} bases one behind the other, got more:"
            f" {some_of(led_here, _NAMED_AT_MOST, separator=' -> ')}"
        )
    identity = files.identity(path)
    if identity in map(files.identity, led_here):
        raise ConfigError(f"the bases lead back to where they began: {_chain(*led_here, path)}")
    if identity in seen:
        return []
    seen.add(identity)
    try:
        config = parse_config(path)
    except ConfigError as error:
        if not led_here:
            raise
        raise ConfigError(f"{error}\n    it is a base: {_chain(*led_here, path)}") from error
    configs = []
    for base in config.base:
        configs += _in_reading_order(_find_base(base, path), (*led_here, path), seen)
    return [*configs, (path, config)]


def _find_base(base: str, path: str) -> str:
    """The file that `base` means in the config at `path`: one beside it, else the shipped config of this name."""
    if "\0" in base:
        raise ConfigError(f"{path}: base: expected the path or name of a config, got {quoted(base)}")
    beside = files.normalize(files.join(files.parent(path), base))
    if files.exists(beside):
        return beside
    # So a user's own file, wherever it lies, can build on a shipped config: base: "bases/coco_kmax".
    shipped = find_config(base)
    # find_config returns its argument where there is none; the error then names the file one would expect.
    return shipped if shipped != base else beside


def _chain(*paths: str) -> str:
    return " -> ".join(paths)


def replace_fields(message: Message, other: Message) -> None:
    """Sets every field that `other` sets in `message` too: lists as a whole, sub-messages field by field.

    Unlike `MergeFrom`, which appends to lists.
    """
    for field, value in other.ListFields():
        if is_repeated(field):
            message.ClearField(field.name)
            getattr(message, field.name).MergeFrom(value)
        elif field.message_type is not None:
            # An empty sub-message says something too: `max_deeplab { }` chooses the meta-architecture.
            getattr(message, field.name).SetInParent()
            replace_fields(getattr(message, field.name), value)
        else:
            setattr(message, field.name, value)
