"""Image files: finding them in folders, and making the record of one image and its label."""

from __future__ import annotations

import os.path
import unicodedata

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures import PICTURE_ENDINGS
from deeplab2_kmax.records import schema
from deeplab2_kmax.wording import printable


def image_files(folder: str, suffix: str, in_subfolders: bool = False) -> dict[str, str]:
    """The image files of a data set's folder by their names without `suffix`, in the order of their paths.

    Args:
        folder: where to look.
        suffix: what the file names end with, such as ".jpg".
        in_subfolders: whether the images lie in the folders below instead.

    Raises:
        DataError: the folder cannot be read, there are no images, or two have the same name.
    """
    below = [files.join(folder, name) for name in list_folder(folder)] if in_subfolders else [folder]
    folders = [path for path in below if files.is_folder(path)]
    paths = [files.join(each, name) for each in folders for name in list_folder(each) if name.endswith(suffix)]
    images = _by_name([(os.path.basename(path)[: -len(suffix)], path) for path in paths])
    if not images:
        raise DataError(f"{folder}: expected images {'*/' if in_subfolders else ''}*{suffix}, got none")
    return images


def user_images(folder: str, suffix: str = "") -> dict[str, str]:
    """The image files of a user's folder by their names without `suffix`, sorted.

    Args:
        folder: where to look.
        suffix: what the file names end with; "" for `PICTURE_ENDINGS`, in small letters or capitals.

    Raises:
        DataError: the folder cannot be read, there are no images, or two have the same name.
    """
    found = []
    for file in list_folder(folder):
        name, ending = (file[: -len(suffix)], file[-len(suffix) :]) if suffix else os.path.splitext(file)
        if ending == suffix if suffix else ending.lower() in PICTURE_ENDINGS:
            found.append((name, files.join(folder, file)))
    if not found:
        raise DataError(f"{folder}: expected images (*{suffix or ', *'.join(PICTURE_ENDINGS)}), got none")
    return _by_name(found)


def _by_name(found: list[tuple[str, str]]) -> dict[str, str]:
    images: dict[str, str] = {}
    for name, path in found:
        _require_utf8(name, path)
        if name in images:
            raise DataError(f"{path}: expected image names that differ, {images[name]} has the same")
        images[name] = path
    return images


def _require_utf8(name: str, path: str) -> None:
    """Refuses names in an older encoding, as records hold UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{printable(path)}: expected a file name in UTF-8, got the bytes {os.fsencode(os.path.basename(path))!r};"
            " rename the file, or unpack its archive with the right encoding (unzip -O latin1, say)"
        ) from error


def same_name(name: str) -> str:
    """The name in the form by which names are compared: macOS stores the accents of letters as separate characters."""
    return unicodedata.normalize("NFC", name)


def list_folder(folder: str) -> list[str]:
    """The sorted names of what is in a folder, without hidden files such as those that macOS leaves (`._x.jpg`).

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return [name for name in files.list_folder(folder) if not name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot read the folder: {error.strerror}") from error


def read_source(path: str, kind: str) -> bytes:
    """The content of a source file.

    Args:
        path: the file.
        kind: what it is, for the message of an error, such as "label".

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the {kind}: {error.strerror}") from error


def image_record(name: str, image_path: str, image_format: str | None, label: np.ndarray | bytes | None) -> bytes:
    """The record of an image file and its label, see `schema.encode_record`.

    Args:
        name: the name of the image in the record.
        image_path: the image file.
        image_format: see `schema.encode_record`.
        label: panoptic ids [height, width], an encoded PNG of class ids, or None for an image without a label.

    Raises:
        DataError: the image cannot be read or is broken, or the label is not of its size; the message names the file.
    """
    image_bytes = read_source(image_path, "image")
    try:
        return schema.encode_record(image_bytes, image_format, name, label)
    except DataError as error:
        raise DataError(f"{image_path}: {error}") from error
