"""Configs found by name: `coco/kmax_r50` is `configs/coco/kmax_r50.textproto` of the checkout or the installed copy."""

from __future__ import annotations

import difflib
import functools
import pathlib

from deeplab2_kmax import files

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
    """The names of all shipped experiments, e.g. "coco/kmax_r50"; what only serves as a base is left out."""
    found = (path.relative_to(shipped_folder()).with_suffix("") for path in shipped_folder().rglob(f"*{_ENDING}"))
    return tuple(sorted(name.as_posix() for name in found if name.parts[0] != "bases"))


def find_config(path: str) -> str:
    """The file that `path` means: itself where it is there, else the shipped config of that name, else `path`.

    Names are accepted with and without `configs/` in front and `.textproto` behind, so that commands written for a
    checkout work in every folder.
    """
    if files.is_remote(path) or files.exists(path) and not files.is_folder(path):
        return path
    name = pathlib.PurePosixPath(path.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        return path
    if name.parts[:1] == ("configs",):
        name = name.relative_to("configs")
    candidate = shipped_folder() / (name if name.suffix == _ENDING else f"{name}{_ENDING}")
    return str(candidate) if candidate.is_file() else path


def similar_names(path: str) -> list[str]:
    """Up to three shipped experiments that `path` may have been meant to name."""
    name = path[: -len(_ENDING)] if path.endswith(_ENDING) else path
    name = name[len("configs/") :] if name.startswith("configs/") else name
    return difflib.get_close_matches(name, shipped_names(), n=3, cutoff=0.6)
