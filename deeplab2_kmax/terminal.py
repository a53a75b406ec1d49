"""What command lines print, and which messages of libraries they hide."""

from __future__ import annotations

import logging
import os
import sys
import warnings

# Goes back to the start of the line and clears it.
ERASE_LINE = "\r\x1b[K"


def quiet_libraries() -> None:
    """Hides TensorFlow's start-up notices, unless the user has set TF_CPP_MIN_LOG_LEVEL.

    It has to be called before TensorFlow is imported.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")


def say(text: str) -> None:
    """Prints a line at once, also to pipes and files, which are buffered; on a terminal, over a line of progress."""
    print(f"{ERASE_LINE}{text}" if sys.stdout.isatty() else text, flush=True)
