"""Errors that a user can mend.

Command lines print them without a traceback. Any other error is a bug and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator

from deeplab2_kmax.wording import wrapped

# 128 plus the number of SIGINT, as shells report it.
_INTERRUPTED = 130


class UserError(ValueError):
    """Something that the user gave is wrong; the message says what was expected, what was given, and where."""


class ConfigError(UserError):
    """An experiment config cannot be read or contradicts itself."""


class DataError(UserError):
    """An image, label, record, shard or annotation file is missing or broken."""


class CheckpointError(UserError):
    """A checkpoint is missing or does not fit the model."""


class TrainingError(UserError):
    """Training cannot go on; the message says at which step, and which loss terms are to blame."""


class StorageError(UserError):
    """Results cannot be written; the message says where, and what the operating system says."""


@contextlib.contextmanager
def user_errors_as_one_line() -> Iterator[None]:
    """Goes around the main function of a command, so that neither a user's mistake nor Ctrl-C shows a traceback.

    A UserError prints `error: ...` on stderr and ends the process with status 1; Ctrl-C ends it with status 130. On a
    terminal, the message is broken at spaces; in files and pipes its lines stay whole, so that they can be searched.
    """
    try:
        yield
    except UserError as error:
        text = f"error: {error}"
        sys.exit(wrapped(text, shutil.get_terminal_size().columns, indent="  ") if sys.stderr.isatty() else text)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
