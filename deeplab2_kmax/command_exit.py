"""How commands end: mistakes, signals and a standard output that cannot be written are one line and an exit status."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from deeplab2_kmax.errors import StorageError, UserError
from deeplab2_kmax.stop_signals import STOPPED, StopSignals, end_without_teardown, name_of, status_of, tell_how_to_go_on
from deeplab2_kmax.terminal import ERASE_LINE
from deeplab2_kmax.wording import printable, wrapped

_READER_LEFT = 141  # What shells report for a process that was ended by SIGPIPE.
# Seconds that a command has to tidy up after a signal; with what comes before and after, it ends within five.
_PATIENCE = 3.0
# The exit status of a command that a signal has ended.
_stopped_with: int | None = None


@contextlib.contextmanager
def one_line_for_errors() -> Iterator[None]:
    """Goes around the main function of a command, so that neither a user's mistake nor a signal shows a traceback.

    A UserError prints `error: ...` on stderr and ends the process with status 1. On a terminal, the message is broken
    at spaces; in files and pipes its lines stay whole, so that they can be searched. So does a standard output that
    cannot be written; one whose reader has left, such as `head`, ends the process silently with status 141.

    Ctrl-C ends the process with status 130, SIGTERM with 143 and SIGHUP with 129, after one line on how to go on: at
    most after a few seconds, unless a step of training or the write of a checkpoint has to be finished. A second one
    ends it at once.
    """
    global _stopped_with
    with StopSignals(_PATIENCE) as stop:
        try:
            # A signal that was held back has left errors alone, such as that of a checkpoint that cannot be written.
            with _named_standard_output(), stop.instead_of_errors(also_held=False):
                yield
        except UserError as error:
            text = printable(f"error: {error}")
            sys.exit(wrapped(text, shutil.get_terminal_size().columns, indent="  ") if sys.stderr.isatty() else text)
        except STOPPED as error:
            tell_how_to_go_on(error, f"stopped by {name_of(error)}: the same command starts anew")
            _stopped_with = status_of(error)
            sys.exit(_stopped_with)


@atexit.register  # This early, so that it runs after those of all libraries.
def _end_if_stopped() -> None:
    """Python would free what TensorFlow has made object by object, which takes seconds, before it ends the process."""
    if _stopped_with is not None:
        end_without_teardown(_stopped_with)


@contextlib.contextmanager
def _named_standard_output() -> Iterator[None]:
    """Has a standard output that cannot be written named, whoever writes to it, and flushes it at the end."""
    output = sys.stdout
    if output is None or output.closed:
        yield
        return
    try:
        with contextlib.redirect_stdout(cast(TextIO, _NamedOutput(output))):
            try:
                yield
            finally:
                sys.stdout.flush()
    except BrokenPipeError:
        _give_up(output)
        sys.exit(_READER_LEFT)
    except StorageError:
        _give_up(output)
        raise


class _NamedOutput:
    """A standard output whose errors say that they are about it; in all else the stream that it is given.

    Without it they would be taken for errors about whatever folder is being written to at the time.

    Names come from data and may hold sequences that a terminal acts on. Whoever prints them, they are shown escaped,
    see `printable`; only our own sequence at the start of a line of progress is let through.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        start = ERASE_LINE if text.startswith(ERASE_LINE) else ""
        with _named():
            return self._stream.write(start + printable(text[len(start) :]))

    def flush(self) -> None:
        with _named():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(
            f"standard output: cannot write to it: {error.strerror}; send it to another file or to a terminal"
        ) from error


def _give_up(output: TextIO) -> None:
    """Lets the output end nowhere if it still fails: the interpreter flushes it at exit and would print a traceback."""
    try:
        output.flush()
    except OSError:
        with contextlib.suppress(OSError):  # Tests put something else in its place, which has no descriptor.
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
