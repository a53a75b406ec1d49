"""Names that come from data, made safe to write files by: those of images in records, and of pictures given to us."""

from __future__ import annotations

import hashlib

# File systems allow 255 bytes; endings such as "_stride32_layer1.png" and the parts of temporary names come on top.
_LONGEST = 180
_DIGEST = 8
_UNNAMED = "unnamed"


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
    return f"{start}-{hashlib.sha256(part.encode()).hexdigest()[:_DIGEST]}"
