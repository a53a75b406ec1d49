"""Names that come from data, made safe to write files by: those of images in records, and of pictures given to us."""

from __future__ import annotations

import hashlib
import os

# The endings of files that are taken for pictures when a folder is listed.
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".gif")
# What else pictures are called, in data sets and for Pillow.
_OTHER_ENDINGS = (".avif", ".heic", ".jfif", ".jp2", ".jpe", ".pbm", ".pgm", ".pnm", ".ppm", ".tga")
_OF_CITYSCAPES = ("_leftImg8bit", "_gtFine_panoptic", "_gtFine_instanceIds", "_gtFine_labelIds")
# File systems allow 255 bytes; endings such as "_stride32_layer1.png" and the parts of temporary names come on top.
_LONGEST = 180
_DIGEST = 8
_UNNAMED = "unnamed"


def without_ending(name: str) -> str:
    """The name of a picture without its ending, in small letters or capitals.

    What else follows a dot is part of the name: "clip.0002" and "clip.0004" are two pictures.
    """
    start, ending = os.path.splitext(name)
    return start if ending.lower() in (*PICTURE_ENDINGS, *_OTHER_ENDINGS) else name


def image_key(name: str) -> str:
    """What names of one image have in common, without their endings: Cityscapes adds to them what a file holds."""
    for addition in _OF_CITYSCAPES:
        if name.endswith(addition):
            return name[: -len(addition)]
    return name


def result_name(name: str) -> str:
    """The file, below a folder and without ending, that evaluation writes of the image of this name.

    Different images may share it, such as "a" and "a.png"; `PredictionFiles` then adds a checksum.
    """
    return safe_name(without_ending(name))


def checksum(name: str) -> str:
    """A few letters and digits that tell a name from others."""
    return hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:_DIGEST]


def safe_name(name: str | bytes) -> str:
    """The name of a file below a folder, whatever the data hold.

    A name may have folders of its own, such as "aachen/a_000". Parts that lead elsewhere (an absolute path, ".", "..")
    are dropped, characters that no file name can hold are replaced, and parts that are too long are cut, with a
    checksum so that two long names stay different. Names that are fit for files come back as they are.

    Args:
        name: text, or bytes that should be UTF-8; others become "\\xe4".

    Returns:
        A relative path of at least one part, with "/" between parts; never one that leaves its folder.
    """
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    # Bytes of a file name that is not UTF-8, as Python holds them in text, and halves of characters.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    parts = [_safe_part(part) for part in text.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or _UNNAMED


def _safe_part(part: str) -> str:
    # pathvalidate leaves line breaks, tabs, "." and ".." as they are, and its cut makes two long names one.
    printable = "".join("_" if ord(character) < 32 or ord(character) == 127 else character for character in part)
    if len(printable.encode()) <= _LONGEST:
        return printable
    start = printable.encode()[: _LONGEST - _DIGEST - 1].decode("utf-8", "ignore")
    return f"{start}-{checksum(part)}"
