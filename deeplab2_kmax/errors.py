"""Errors a user can mend. Command lines print them as one line; anything else is a bug and keeps its traceback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """Something the user gave is not what was expected; the message says what was expected, what came and where."""


class ConfigError(UserError):
    """An experiment config that cannot be read or does not make sense."""


class DataError(UserError):
    """An image, label, record, shard or annotation file that is missing or broken."""


class CheckpointError(UserError):
    """A checkpoint that is missing or does not fit the model."""


@contextlib.contextmanager
def user_errors_as_one_line() -> Iterator[None]:
    """Wraps a command's main function: a UserError ends the process with `error: ...` on stderr and exit status 1."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
