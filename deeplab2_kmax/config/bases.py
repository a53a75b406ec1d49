"""Configs that build on others: `base: "../bases/coco_1281.textproto"` reads that file first.

A base may have bases of its own. Where one is reached on two ways, it is read once, at its first place, so that it
never takes back what a later file changed.
"""

from __future__ import annotations

from deeplab2_kmax import files
from deeplab2_kmax.config.named import find_config
from deeplab2_kmax.config.parsing import parse_config
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2


def read_with_bases(path: str) -> config_pb2.ExperimentOptions:
    """The config at `path` on top of its bases; its own field `base` is empty, so that it stands alone.

    What a file sets replaces what its bases set: single values and whole lists. Sub-messages are merged field by field.

    Raises:
        ConfigError: a file cannot be read, is not a config or is its own base; names the files that led to it.
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
    """The (file, config) pairs to merge for `path`, bases before the files that name them; `seen` grows by them."""
    identity = files.identity(path)
    if identity in map(files.identity, led_here):
        raise ConfigError(f"a config cannot be its own base: {_chain(*led_here, path)}")
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
        beside = files.normalize(files.join(files.parent(path), base))
        # A file of one's own, anywhere, may build on shipped configs by their names: base: "bases/coco_kmax".
        found = beside if files.exists(beside) else _shipped(base, beside)
        configs += _in_reading_order(found, (*led_here, path), seen)
    return [*configs, (path, config)]


def _shipped(base: str, beside: str) -> str:
    """The shipped config called `base`, or `beside`, which is not there and which the error will name."""
    found = find_config(base)
    return found if found != base else beside


def _chain(*paths: str) -> str:
    return " -> ".join(paths)


def replace_fields(message, other) -> None:
    """Sets every field that `other` sets in `message` too: lists as a whole, sub-messages field by field."""
    for field, value in other.ListFields():
        if field.label == field.LABEL_REPEATED:
            message.ClearField(field.name)
            getattr(message, field.name).MergeFrom(value)
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            replace_fields(getattr(message, field.name), value)
        else:
            setattr(message, field.name, value)
