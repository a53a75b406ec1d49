"""What the commands for picture files share: memory for large ones, and results that overwrite no input."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.names import result_name
from deeplab2_kmax.wording import one_line, printable

# Read by TensorFlow when it first allocates; otherwise it keeps the memory that its largest maps have taken.
_FREES_MEMORY = "TF_ONEDNN_USE_SYSTEM_ALLOCATOR"


def free_memory_between_steps() -> None:
    """Has TensorFlow give memory back to the system that it no longer needs, unless the user has chosen otherwise.

    The maps of a picture take 20 bytes a pixel, and drawing it takes nearly as many; so only one of them is in memory.
    For many small steps, as in training, keeping memory is faster. Has to be called before TensorFlow is imported.
    """
    os.environ.setdefault(_FREES_MEMORY, "1")


def make_output_folder(folder: str | os.PathLike[str]) -> str:
    """Makes the folder where missing; raises UserError if nothing can be written there."""
    try:
        files.require_writable(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot write into this output folder: {error.strerror}") from error
    return os.fspath(folder)


def require_output_file(flag: str, path: str, inputs: Iterable[str] = ()) -> None:
    """Finds out before the work, which may take long, whether its result can be written; leaves nothing behind.

    Args:
        flag: that names the file, for messages.
        path: of the file, local or remote.
        inputs: files, or patterns of files, that are read; what is no such thing does no harm.

    Raises:
        UserError: it is no path of a file, or that of one of the inputs, or its folder cannot be written to.
    """
    if path in ("", "-"):
        raise UserError(f"{flag}: expected the path of a file, got {path!r}; name one, as nothing is written to stdout")
    for given in inputs:
        if files.identity(path) in (files.identity(each) for each in (given, *files.glob(given))):
            raise UserError(f"{flag}: expected a file to write, got {path}, which is read; choose another name")
    if files.is_folder(path):
        raise UserError(f"{flag}: expected the path of a file, got the folder {path}; add the name of a file")
    if files.is_remote(path):
        return
    # The folder is made where missing, in the first one above it that is there.
    folder = files.parent(files.identity(path))
    while not os.path.lexists(folder) and files.parent(folder) != folder:
        folder = files.parent(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise UserError(f"{flag}: cannot write {path}, as {folder} is no folder that files can be written to")


def output_names(images: Iterable[str]) -> dict[str, str]:
    """A name for the results of each picture: its file name without ending, numbered where several pictures share it.

    Names that are too long, or no UTF-8, are changed, see `safe_name`.

    Args:
        images: different paths, local or remote.

    Returns:
        path -> name.
    """
    names: dict[str, str] = {}
    for image in images:
        stem, number = result_name(os.path.basename(image)), 1
        name = stem
        while name in names.values():
            number += 1
            name = f"{stem}_{number}"
        names[image] = name
    return names


def refuse_to_overwrite(keep: Iterable[str], targets: Iterable[str], image: str) -> None:
    """Raises UserError if a result of the picture `image` (one of `targets`) would replace one of the files `keep`."""
    kept = {files.identity(path) for path in keep}
    for target in targets:
        if files.identity(target) in kept:
            raise UserError(f"{image}: its result would overwrite the input {target}; choose another output folder")


def for_each_picture(
    work: Callable[[str, str, str], str],
    images: list[str],
    folder: str | os.PathLike[str],
    report: Callable[[str], object],
    complain: Callable[[str], object],
) -> int:
    """Does the work for one picture file after the other; files that cannot be read are reported and left out.

    Args:
        work: takes the path of a picture, the output folder and the first part of the names of its results; returns
            the text to report.
        images: paths; repeated ones count once.
        folder: where to write, local or remote; made where missing.
        report: called with a text for each picture.
        complain: called with a text for each file that failed.

    Returns:
        The number of files that failed.

    Raises:
        UserError: results cannot be written.
    """
    folder = make_output_folder(folder)
    failed = 0
    for image, name in output_names(dict.fromkeys(images)).items():
        try:
            text = work(image, folder, name)
        except DataError as error:
            complain(_shown(f"error: {error}", image))
            failed += 1
            continue
        report(_shown(text, image))
    return failed


def _shown(text: str, image: str) -> str:
    """The text with the picture's path on one line: it may hold a line break, which would fake a line of ours."""
    return printable(text.replace(image, one_line(image)))


def encode_png(pixels: np.ndarray) -> bytes:
    """The content of a PNG file for [H, W, 3] uint8 RGB pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_result(path: str, content: bytes) -> None:
    """Writes a file atomically; raises UserError if that fails."""
    try:
        files.write_bytes(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot write this file: {error.strerror}") from error
