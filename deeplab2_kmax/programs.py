"""Programs with DeepLab2's flags, which absl parses: one style of help and of error, one exit status for each end.

`trainer/train.py`, `trainer/export_model.py`, `evaluation/evaluate.py` and the converters run through `run_program`.
Flags are parsed as in DeepLab2 (`--flag=value`, `-flag value`, `--noflag`, `--flagfile`). Help looks like that of the
console command `deeplab2-kmax`, which argparse parses.
"""

from __future__ import annotations

import argparse
import contextlib
import logging as std_logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from absl import app, flags, logging

from deeplab2_kmax.errors import UserError, user_errors_as_one_line

if TYPE_CHECKING:
    from deeplab2_kmax.protos import config_pb2

_HELP = re.compile(r"--?(help|helpshort|h|\?)")
# What absl adds to a flag's help and argparse's layout says already.
_OF_ABSL = re.compile(r"^<[^>]*>: |;\s*repeat this option to specify a list of values$|\s*\(a comma separated list\)$")
_REQUIRED = re.compile(r"flag --(\w+)=None: .*must have a value other than None")


def run_program(work: Callable[[], None], description: str) -> None:
    """Parses the flags of `sys.argv` and calls `work`; the caller has defined the flags.

    A user's mistake ends in one line on stderr and exit status 1, Ctrl-C in status 130; `--help` prints the key flags
    of the main module and ends with status 0.

    Args:
        work: what the program does; it finds the values in `absl.flags.FLAGS`.
        description: what the help says first, usually the program's docstring.
    """

    def main(argv: Sequence[str]) -> None:
        with user_errors_as_one_line():
            if len(argv) > 1:
                raise UserError(f"unexpected argument {argv[1]!r}; flags look like --name=value, see --help")
            work()

    app.run(main, flags_parser=lambda argv: _parse(argv, description))


def _parse(argv: Sequence[str], description: str) -> list[str]:
    """The arguments that are no flags; ends the process where help is asked for or a flag is wrong."""
    if any(_HELP.fullmatch(argument) for argument in argv[1:]):
        print(_help(description), end="")
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        missing = _REQUIRED.match(str(error))
        text = f"expected the flag --{missing[1]}; --help says what it is" if missing else str(error)
        sys.exit(f"error: {text}")


def _help(description: str) -> str:
    """The flags of the program, laid out by argparse."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=_command(),
        usage="%(prog)s --flag=value ...",
        description=description,
        formatter_class=formatter,
        add_help=False,
    )
    parser.add_argument("--help", action="help", help="show this help and exit")
    for flag in sorted(flags.FLAGS.get_key_flags_for_module(sys.argv[0]), key=lambda flag: flag.name):
        values = getattr(flag.parser, "enum_values", None)
        text = _OF_ABSL.sub("", flag.help or "")
        if flag.default not in (None, "", []):
            text += f" (default: {flag.default})"
        text = text.replace("%", "%%")  # argparse fills in %(...)s.
        if flag.boolean:
            parser.add_argument(f"--[no]{flag.name}", action="store_true", help=text)
        else:
            parser.add_argument(
                f"--{flag.name}", metavar="{" + ",".join(values) + "}" if values else "VALUE", help=text
            )
    return parser.format_help()


def _command() -> str:
    """How the user calls this program."""
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name}" if spec else f"python {os.path.relpath(sys.argv[0])}"


def load_config_with_notes(path: str, overrides: Sequence[str]) -> config_pb2.ExperimentOptions:
    """`load_config` that says on stderr what it filled in; later only warnings are shown, unless --verbosity asks."""
    from deeplab2_kmax.config import load_config

    with _plain_notes():
        config = load_config(path, overrides)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    return config


@contextlib.contextmanager
def _plain_notes() -> Iterator[None]:
    """Shows log messages as they are, without time and source."""
    handler = logging.get_absl_handler()
    formatter = handler.formatter
    handler.setFormatter(std_logging.Formatter("%(message)s"))
    try:
        yield
    finally:
        handler.setFormatter(formatter)
