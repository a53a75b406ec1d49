"""What command lines show, and what they keep off the terminal."""

from __future__ import annotations

import logging
import os
import sys
import warnings

# Back to the start of the line, and clear it.
ERASE_LINE = "\r\x1b[K"


def quiet_libraries() -> None:
    """Keeps TensorFlow's start-up notices off the terminal, unless TF_CPP_MIN_LOG_LEVEL is set.

    Works only before TensorFlow is imported.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")


def say(text: str) -> None:
    """Prints a line at once, also where stdout is a pipe or a file; on a terminal in place of a sign of life."""
    print(f"{ERASE_LINE}{text}" if sys.stdout.isatty() else text, flush=True)
