"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows has no flock; there folders are unguarded.
    fcntl = None

_READ_AT_MOST = 200


@contextlib.contextmanager
def hold_lock(path: str | os.PathLike) -> Iterator[None]:
    """Holds the lock file `path`, made if need be, until the context ends or the process dies in any way.

    The file tells process and host of the last one that held it; see `holder`. File systems that know no locks let
    every process in.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:
                pass
        with contextlib.suppress(OSError):  # On a full disk the lock holds without a name.
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(descriptor)


def holder(path: str | os.PathLike) -> str:
    """Who wrote the lock file, e.g. "process 123 on host"; "another process" where it does not say."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_READ_AT_MOST) or "another process"
    except OSError:
        return "another process"
