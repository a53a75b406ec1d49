"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import filelock

_READ_AT_MOST = 200


@contextlib.contextmanager
def hold_lock(path: str | os.PathLike) -> Iterator[None]:
    """Holds the lock file `path`, made if need be, until the context ends or the process dies in any way.

    A file beside it tells process and host of the last one that held it; see `holder`. File systems that know no locks
    let every process in.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the file cannot be made.
    """
    lock = filelock.FileLock(path, timeout=0, mode=0o666)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BlockingIOError(f"{os.fspath(path)} is held by {holder(path)}") from None
    except NotImplementedError:  # What filelock says of a file system without locks.
        yield
        return
    try:
        # Not in the lock file itself: who merely tries to get the lock empties that file. On a full disk the lock holds
        # without a name.
        with contextlib.suppress(OSError), open(_name_file(path), "w", encoding="utf-8") as file:
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        lock.release()


def holder(path: str | os.PathLike) -> str:
    """Who held the lock file last, e.g. "process 123 on host"; "another process" where that is not known."""
    try:
        with open(_name_file(path), encoding="utf-8", errors="replace") as file:
            return file.read(_READ_AT_MOST) or "another process"
    except OSError:
        return "another process"


def _name_file(path: str | os.PathLike) -> str:
    return f"{os.fspath(path)}.holder"
