"""Runs a reader and sees that it ends, takes no more memory than its input explains, and writes where it may."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import resource
import sys
import tempfile

from PIL import Image

from deeplab2_kmax.errors import UserError

_SECONDS = 120
_FIXED = 200 * 2**20
# Words of Python and TensorFlow that no user should have to read.
_FOREIGN = (
    "Traceback",
    "KeyError",
    "NoneType",
    "object has no attribute",
    "object is not",
    "{{node",
    "invalid literal",
)
# What changes folders, with the place of the argument that says in which open folder a relative path starts.
_WRITING = {"os.mkdir": 2, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2}

# Where Python and TensorFlow keep what they need: shared memory, code that AutoGraph has made.
_OF_LIBRARIES = ("/dev/", "/proc/", os.path.join(tempfile.gettempdir(), "__autograph_generated"))

_folder: str | None = None
_outside: list[str] = []


def _audit(event: str, args: tuple) -> None:
    if _folder is None or (event != "open" and event not in _WRITING):
        return
    if event == "open":
        path, _, flags = args
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) or not isinstance(path, (str, bytes)):
            return
    elif args[_WRITING[event]] >= 0:
        return  # Within a folder that was opened before, as when a tree is deleted, from its top, which was looked at.
    path = os.path.abspath(os.fsdecode(args[0])) if isinstance(args[0], (str, bytes)) else ""
    if not path.startswith((_folder, *_OF_LIBRARIES)) and "__pycache__" not in path and path != tempfile.gettempdir():
        _outside.append(f"{event} {path}")


sys.addaudithook(_audit)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def declared_pixels(content: bytes) -> int:
    """The number of pixels that the head of a picture file declares; 0 if it is none."""
    with contextlib.suppress(Exception):
        width, height = Image.open(io.BytesIO(content)).size
        return width * height
    return 0


def watched(read, folder, size: int, pixels: int = 0, several_lines: bool = False) -> str:
    """Calls `read()`, which may raise the package's own errors only.

    Args:
        read: the reader with its input.
        folder: where it may write.
        size: bytes of the input.
        pixels: how many pixels it declares.
        several_lines: whether an error may list several problems, one a line.

    Returns:
        The text of the error, or "".
    """
    global _folder
    said = ""
    before = _peak()
    _outside.clear()
    _folder = os.path.abspath(folder)
    faulthandler.dump_traceback_later(_SECONDS, exit=True)
    try:
        read()
    except UserError as error:
        said = str(error)
        assert said and (several_lines or "\n" not in said), said
        assert not [word for word in _FOREIGN if word in said], said
    finally:
        faulthandler.cancel_dump_traceback_later()
        _folder = None
    assert not _outside, f"written outside of {folder}: {_outside}"
    grown = _peak() - before
    assert grown <= 4 * (size + 4 * pixels) + _FIXED, f"{grown / 2**20:.0f} MiB for {size} bytes, {pixels} pixels"
    return said


@contextlib.contextmanager
def own_folder(tmp_path):
    """A new folder for one input."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        yield folder
