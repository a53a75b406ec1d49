"""A disk that is full, read-only or broken ends a run with one message."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from deeplab2_kmax import files
from deeplab2_kmax.errors import StorageError

_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOTDIR)
_REASONS = tuple(os.strerror(code) for code in _CODES)


@contextlib.contextmanager
def storage_errors(folder: str) -> Iterator[None]:
    """Wraps a run whose results go to `folder`.

    Raises:
        StorageError: in place of an error about space or permission that comes from the operating system, directly or
            through TensorFlow, and in place of all errors where a local folder is gone. Others pass unchanged.
    """
    import tensorflow as tf  # Late, as `storage_fault` serves programs that start without it.

    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = storage_fault(error)
        if reason is None:
            if files.is_remote(folder) or files.exists(folder):
                raise
            raise StorageError(
                f"{files.absolute(folder)} was deleted while the run used it; the same command starts anew"
            ) from error
        # Predictions may go to another disk (`override_save_dir`); then this one is not to blame.
        elsewhere = isinstance(error, OSError) and error.filename and not _is_below(error.filename, folder)
        where, kept = ("", folder) if elsewhere else (f" writing to {files.absolute(folder)}", "there")
        raise StorageError(
            f"cannot go on{where}: {reason}. The checkpoints {'in ' if elsewhere else ''}{kept} are whole; once this is"
            " mended, the same command goes on from the last one"
        ) from error


def _is_below(path: str, folder: str) -> bool:
    return files.absolute(path).startswith(files.absolute(folder).rstrip("/") + "/")


def storage_fault(error: BaseException) -> str | None:
    """What the operating system says about a disk, in one line; None if the error is about something else.

    TensorFlow writes checkpoints and event files itself and reports the operating system's errors as its own, with
    various types and numbers; only the text of the message tells them.
    """
    if isinstance(error, OSError):
        if error.errno not in _CODES:
            return None
        reason = error.strerror or os.strerror(error.errno)
        return f"{error.filename}: {reason}" if error.filename else reason
    # Without the names that TensorFlow gives its own operations.
    message = re.sub(r"\{\{.*?\}\} ?| ?\[Op:\w+\]", "", str(getattr(error, "message", error)))
    return next((line for line in message.split("\n") if any(reason in line for reason in _REASONS)), None)
