"""Results of commands that work on picture files: their folder and names; nothing is overwritten or half written."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from deeplab2_kmax.errors import DataError, UserError


def make_output_folder(folder: str | os.PathLike) -> Path:
    """Makes the folder, or raises UserError where nothing can be written there."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make this output folder: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: cannot write into this output folder")
    return folder


def output_names(images: Iterable[str]) -> dict[str, str]:
    """A name for the results of each picture: its file name, numbered where several pictures share one."""
    names: dict[str, str] = {}
    for image in images:
        stem, number = Path(image).stem, 1
        name = stem
        while name in names.values():
            number += 1
            name = f"{stem}_{number}"
        names[image] = name
    return names


def refuse_to_overwrite(keep: Iterable[str], targets: Iterable[Path], image: str) -> None:
    """Raises UserError where a result of `image` (one of `targets`) would take the place of a file to keep."""
    kept = {os.path.realpath(path) for path in keep}
    for target in targets:
        if os.path.realpath(target) in kept:
            raise UserError(f"{image}: its result would overwrite the input {target}; choose another output folder")


def for_each_picture(
    work: Callable[[str, Path, str], str], images: list[str], folder: str | os.PathLike, report, complain
) -> int:
    """Does the work for picture files one after the other; those that cannot be read are named and left out.

    Args:
      work: (path of a picture, output folder, first part of the names of its results) -> text to report.
      images: paths; repeated ones count once.
      folder: where to write; made where missing.
      report: called with a text for each picture.
      complain: called with a text for each file that failed.

    Returns:
      the number of files that failed.

    Raises:
      UserError: results cannot be written.
    """
    folder = make_output_folder(folder)
    failed = 0
    for image, name in output_names(dict.fromkeys(images)).items():
        try:
            text = work(image, folder, name)
        except DataError as error:
            complain(f"error: {error}")
            failed += 1
            continue
        report(text)
    return failed


def encode_png(pixels: np.ndarray) -> bytes:
    """The content of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot write this file: {error.strerror}") from error
