"""What command lines print, and which messages of libraries they hide."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from deeplab2_kmax.wording import printable, wrapped

NOTE = "note: "
WARNING = "warning: "
# Level of logging, the highest first -> what stands before such messages.
_PREFIXES = {logging.ERROR: "error: ", logging.WARNING: WARNING, 0: NOTE}
# TensorFlow's C++ code says nothing below this level: 1 hides notes, 2 warnings too, 3 errors too.
_LEVEL_VARIABLE, _SILENT = "TF_CPP_MIN_LOG_LEVEL", "3"
# Goes back to the start of the line and clears it.
ERASE_LINE = "\r\x1b[K"


def quiet_imports() -> bool:
    """Hides what libraries say on stderr when they are imported, unless the user has set TF_CPP_MIN_LOG_LEVEL.

    TensorFlow reads the level once, when it is imported, so it may not have been imported before. The level below would
    still show that its CUDA plugins are registered twice, which it calls errors. What fails raises an exception, which
    no level hides.

    Returns:
        Whether the user leaves the choice to us.
    """
    if os.environ.setdefault(_LEVEL_VARIABLE, _SILENT) != _SILENT:
        return False
    # It says how long Google will support the version of Python.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
    return True


def quiet_libraries() -> None:
    """Hides TensorFlow's warnings in a program of ours, and what libraries say when they are imported.

    It has to be called before TensorFlow is imported; see `quiet_imports`.
    """
    if quiet_imports():
        logging.getLogger("tensorflow").setLevel(logging.ERROR)


class OurFormatter(logging.Formatter):
    """Messages of Python's logging in the form that all our messages have: `warning: ...`, within 80 columns."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = next(prefix for level, prefix in _PREFIXES.items() if record.levelno >= level)
        return wrapped(printable(record.getMessage()), prefix=prefix)


def show_warnings_as_ours() -> None:
    """Has the warnings of this package, which it leaves to absl's logging, printed on stderr in our form.

    For commands that absl does not start: there, Python would print `WARNING:absl:...`.
    """
    logger = logging.getLogger("absl")
    handler = logging.StreamHandler()
    handler.setFormatter(OurFormatter())
    # Only ours, also where a process runs several commands, as tests do.
    logger.handlers[:] = [handler]
    logger.propagate = False


def note(text: str) -> None:
    """Prints a note on stderr, within 80 columns; each of its lines is wrapped by itself."""
    print(wrapped(printable(text), prefix=NOTE), file=sys.stderr, flush=True)


def say_note(text: str) -> None:
    """Says a note among the other lines of a run, see `note` and `say`."""
    say(wrapped(text, prefix=NOTE))


def say_warning(text: str) -> None:
    """Says a warning among the other lines of a run."""
    say(wrapped(text, prefix=WARNING))


def say(text: str) -> None:
    """Prints a line at once, also to pipes and files, which are buffered; on a terminal, over a line of progress."""
    print(f"{ERASE_LINE}{text}" if sys.stdout.isatty() else text, flush=True)
