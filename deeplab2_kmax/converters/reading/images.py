"""Image files: finding them in folders, and making the record of one image and its label."""

from __future__ import annotations

import os.path
import posixpath
import unicodedata
import urllib.parse
from collections.abc import Sequence
from typing import TypeVar

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.pictures import PICTURE_ENDINGS
from deeplab2_kmax.records import schema
from deeplab2_kmax.wording import counted, printable

_Image = TypeVar("_Image")
# Makes up for the rounding of a fraction such as 0.1, which as a float may be just below the share that is meant.
_ROUNDING = 1e-9


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


def tell_of_subfolders(folder: str, endings: tuple[str, ...], what: str) -> None:
    """Prints how many files lie in the folders below, from where they are not read; hidden ones do not count.

    Args:
        folder: a folder that exists.
        endings: of the files, in small letters.
        what: the noun for one of them.
    """
    below = [files.join(folder, name) for name in list_folder(folder) if files.is_folder(files.join(folder, name))]
    found = [files.join(each, name) for each in below for name in list_folder(each) if name.lower().endswith(endings)]
    if found:
        print(f"{folder}: left out {counted(len(found), what)} in the folders below, such as {found[0]}")


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


class FilesByName:
    """The files of a folder, found by names that may hold the folders where their maker kept them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._listed: dict[str, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """The path of a file, below the folder or in it without the folders of its name; None where it is not.

        Args:
            name: of the file; with / or \\ between folders, as it is or as URLs write it.
        """
        name = name.replace("\\", "/")  # As tools on Windows write it.
        for spelled in dict.fromkeys((name, urllib.parse.unquote(name))):
            folder, base = posixpath.split(spelled)
            for place in self._places(folder):
                if same_name(base) in self._names(place):
                    return files.join(place, self._names(place)[same_name(base)])
        return None

    def find_picture(self, name: str) -> str | None:
        """The path of the picture whose name without ending is given; None where there is none.

        Raises:
            DataError: there are two, of different endings.
        """
        endings = [each for ending in PICTURE_ENDINGS for each in (ending, ending.upper())]
        found = [path for path in (self.find(name + ending) for ending in endings) if path is not None]
        if len(found) > 1:
            raise DataError(f"{found[0]}: expected one picture of this name, got {os.path.basename(found[1])}, too")
        return found[0] if found else None

    def _places(self, folder: str) -> list[str]:
        # The folders of a URL, or of its maker's disk, are nowhere below this one.
        is_below = bool(folder) and not files.is_remote(folder) and not folder.startswith("/")
        return [files.join(self._folder, folder), self._folder] if is_below else [self._folder]

    def _names(self, folder: str) -> dict[str, str]:
        # One listing takes less time than a look at each file, above all on network storage.
        if folder not in self._listed:
            names = list_folder(folder) if files.is_folder(folder) else []
            self._listed[folder] = {same_name(name): name for name in names}
        return self._listed[folder]


def split_by_fraction(images: Sequence[_Image], split: str, val_fraction: float) -> list[tuple[str, list[_Image]]]:
    """Spreads images over a split and "val", evenly along the list; the same list is always split in the same way.

    Args:
        images: of any kind, in the order of their names.
        split: the name of the split.
        val_fraction: the share, 0 to below 1, that goes to the split "val".

    Returns:
        (name of the split, its images) of each split that gets any.

    Raises:
        DataError: the fraction is out of range, or the split itself is "val".
    """
    if not 0 <= val_fraction < 1:
        raise DataError(f"val_fraction: expected a share from 0 to below 1, got {val_fraction:g}")
    if val_fraction and split == "val":
        raise DataError(f"val_fraction: expected 0, as the split itself is val; got {val_fraction:g}")
    # How many of the first images are in "val". Where that number grows, the image goes there.
    shares = [int((place + 1) * val_fraction + _ROUNDING) for place in range(len(images))]
    held_out = [share > before for share, before in zip(shares, [0, *shares])]
    # Pairs rather than a dictionary, as the split itself may be "val".
    chosen = [
        (split, [image for image, is_held_out in zip(images, held_out) if not is_held_out]),
        ("val", [image for image, is_held_out in zip(images, held_out) if is_held_out]),
    ]
    return [(name, items) for name, items in chosen if items]


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


def image_record(
    name: str, image_path: str, image_format: str | None, label: schema.Label, content: bytes | None = None
) -> bytes:
    """The record of an image file and its label, see `schema.encode_record`.

    Args:
        name: the name of the image in the record.
        image_path: the image file.
        image_format: see `schema.encode_record`.
        label: see `schema.encode_record`.
        content: the bytes of the image, where they are a part of the file only.

    Raises:
        DataError: the image cannot be read or is broken, or the label is not of its size; the message names the file.
    """
    image_bytes = read_source(image_path, "image") if content is None else content
    try:
        return schema.encode_record(image_bytes, image_format, name, label)
    except DataError as error:
        raise DataError(f"{image_path}: {error}") from error
