"""Configs found by name: "coco/kmax_r50" is configs/coco/kmax_r50.textproto of the checkout or the package."""

from __future__ import annotations

import functools
import os
import pathlib

from deeplab2_kmax import files
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.wording import similar

_ENDING = ".textproto"
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


@functools.cache
def shipped_folder() -> pathlib.Path:
    """The folder of the configs that come with the package."""
    # A wheel holds configs/ inside the package; in a checkout, installed or not, it lies beside the package.
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


@functools.cache
def shipped_names() -> tuple[str, ...]:
    """The names of all shipped configs, e.g. "coco/kmax_r50" and "bases/coco_kmax"."""
    found = (path.relative_to(shipped_folder()).with_suffix("") for path in shipped_folder().rglob(f"*{_ENDING}"))
    return tuple(sorted(name.as_posix() for name in found))


def find_config(path: str) -> str:
    """Finds the file that a user means by `path`.

    A shipped config may be named with and without `configs/` in front and `.textproto` behind, so that commands written
    for a checkout work in every folder.

    Args:
        path: a local or remote file, or the name of a shipped config.

    Returns:
        `path` itself where there is such a file, with `.textproto` behind if need be; else the shipped config of that
        name; else `path` again (reading it then fails with a message that says so).

    Raises:
        ConfigError: no file can have this path.
    """
    if "\0" in path:
        raise ConfigError(f"expected the path or name of a config, got {path!r}, which no file can be called")
    # A remote path is never a name; and not asking whether it exists saves a request.
    if files.is_remote(path) or _is_file(path):
        return path
    # One's own files come first, also where their ending is left out.
    if _is_file(f"{path}{_ENDING}"):
        return f"{path}{_ENDING}"
    name = pathlib.PurePosixPath(path.replace("\\", "/"))
    # Such a path says where to look; another file of a similar name somewhere else is not what is meant.
    if name.is_absolute() or ".." in name.parts:
        return path
    if name.parts[:1] == ("configs",):
        name = name.relative_to("configs")
    candidate = shipped_folder() / (name if name.suffix == _ENDING else f"{name}{_ENDING}")
    # Not candidate.is_file(), which raises an error about a name that is too long.
    return str(candidate) if os.path.isfile(candidate) else path


def similar_names(path: str) -> list[str]:
    """Up to three shipped configs, bases among them, with a name similar to `path`, the most similar first."""
    name = path[: -len(_ENDING)] if path.endswith(_ENDING) else path
    # Names have two parts, so that of a longer path, for instance that of a missing base, the last two tell most.
    name = "/".join(pathlib.PurePosixPath(name).parts[-2:])
    return similar(name, shipped_names(), at_most=3)


def _is_file(path: str) -> bool:
    return files.exists(path) and not files.is_folder(path)
