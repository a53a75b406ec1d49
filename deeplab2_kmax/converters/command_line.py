"""What the command lines of the converters have in common.

A converter that defines flags here makes them its own, so that its --help lists them:
`flags.adopt_module_key_flags(command_line)`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

from absl import flags

from deeplab2_kmax.errors import user_errors_as_one_line

_INTERRUPTED = 130


def define_output_flags(num_shards: int | None = None) -> None:
    """Flags for where the records go and how the work is spread; `num_shards` is the default of that flag."""
    flags.DEFINE_string("output_dir", None, "Folder for the TFRecord shards.", required=True)
    default = "" if num_shards else "; default by the number of images"
    flags.DEFINE_integer("num_shards", num_shards, f"Files a split{default}.", lower_bound=1)
    flags.DEFINE_integer("num_processes", None, "Default by the number of images and cores.", lower_bound=1)
    flags.DEFINE_string(
        "beam", None, "Convert with Apache Beam; the options of its pipeline, such as --beam='--runner=DirectRunner'."
    )


def define_crowd_flag(default: bool = True) -> None:
    """DeepLab2's flag for crowd regions."""
    flags.DEFINE_boolean(
        "treat_crowd_as_ignore", default, "Label crowd regions void instead of their class with instance 0."
    )


def flag_values(convert: Callable) -> dict[str, object]:
    """The flags that are parameters of `convert`."""
    return {name: flags.FLAGS[name].value for name in inspect.signature(convert).parameters}


def run(convert: Callable) -> None:
    """Calls `convert` with the flags of the same names; a user's mistake or Ctrl-C ends the process without a
    traceback."""
    with user_errors_as_one_line():
        try:
            convert(**flag_values(convert))
        except KeyboardInterrupt:
            sys.exit(_INTERRUPTED)
