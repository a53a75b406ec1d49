"""Errors a user can mend. Command lines print them as one line; anything else is a bug and keeps its traceback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

_INTERRUPTED = 130


class UserError(ValueError):
    """Something the user gave is not what was expected; the message says what was expected, what came and where."""


class ConfigError(UserError):
    """An experiment config that cannot be read or does not make sense."""


class DataError(UserError):
    """An image, label, record, shard or annotation file that is missing or broken."""


class CheckpointError(UserError):
    """A checkpoint that is missing or does not fit the model."""


class TrainingError(UserError):
    """Training cannot go on: the message says at which step, and which loss terms are to blame."""


class StorageError(UserError):
    """Results cannot be written: the message says where, and what the operating system says."""


@contextlib.contextmanager
def user_errors_as_one_line() -> Iterator[None]:
    """How a command ends: around its main function, so that neither a user's mistake nor Ctrl-C shows a traceback.

    A UserError prints `error: ...` on stderr and ends the process with status 1, Ctrl-C with 130, as shells expect.
    """
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
