"""What the command lines of the converters have in common.

A converter that defines flags here makes them its own, so that its --help lists them:
`flags.adopt_module_key_flags(command_line)`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from absl import flags


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


def convert_by_flags(convert: Callable) -> None:
    """Calls `convert` with the flags that have the names of its parameters."""
    convert(**flag_values(convert))
