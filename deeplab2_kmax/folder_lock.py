"""Keeps a folder to one process at a time: a lock file in it, and a file that names the process that holds the lock."""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
from collections.abc import Iterator
from typing import Any

import filelock

from deeplab2_kmax import files

_READ_AT_MOST = 200
# On a file system without locks, newer versions of filelock take the existence of the lock file as the lock. Here that
# would be wrong: the file stays after each run, so that no second one could start.
_OPTIONS: dict[str, Any] = (
    {"fallback_to_soft": False}
    if "fallback_to_soft" in inspect.signature(filelock.FileLock.__init__).parameters
    else {}
)


@contextlib.contextmanager
def hold_lock(path: str | os.PathLike[str]) -> Iterator[None]:
    """Holds the lock file `path` until the context ends or the process dies in any way.

    The lock file and its folder are made where missing. The file `<path>.holder` beside it names the process that took
    the lock last, see `holder`. On file systems that cannot lock files, every process gets the lock.

    Where Python has no `fcntl`, filelock takes the existence of the lock file as the lock. The file of a process that
    was killed is recognized on the same machine only; of another machine's, a user has to delete it.

    Args:
        path: a local file.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the lock file cannot be made.
    """
    lock = filelock.FileLock(path, timeout=0, **_OPTIONS)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BlockingIOError(f"{os.fspath(path)} is held by {holder(path)}") from None
    except (NotImplementedError, OSError):
        # Either the file cannot be made, which has to be said, or it can, and the file system cannot lock it: some
        # network file systems answer with ENOLCK, ENOTSUP or ENOSYS (as NotImplementedError in older filelocks).
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o666))
        yield
        return
    try:
        # Not in the lock file itself, which filelock may empty when another process tries to get the lock.
        # On a full disk, the lock is held without a name.
        with contextlib.suppress(OSError):
            files.write_text(_name_file(path), f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        lock.release()


def lock_files(path: str | os.PathLike[str]) -> list[str]:
    """The files that `hold_lock` makes."""
    return [os.fspath(path), _name_file(path)]


def holder(path: str | os.PathLike[str]) -> str:
    """The process that took the lock file last, e.g. "process 123 on host"; "another process" if that is unknown."""
    try:
        name = files.read_bytes(_name_file(path))[:_READ_AT_MOST]
    except OSError:
        return "another process"
    return name.decode("utf-8", errors="replace") or "another process"


def _name_file(path: str | os.PathLike[str]) -> str:
    return f"{os.fspath(path)}.holder"
