"""Runs programs whose flags are parsed by absl, as DeepLab2's are.

`trainer/train.py`, `trainer/export_model.py`, `evaluation/evaluate.py` and the converters run through `run_program`.
absl accepts all the spellings that DeepLab2's users know (`--flag=value`, `-flag value`, `--noflag`, `--flagfile`). Its
help and errors do not look like those of the console command `deeplab2-kmax`, which uses argparse; so help is laid out
by argparse here too, and errors are one line.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from absl import app, flags, logging

from deeplab2_kmax.command_exit import one_line_for_errors
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.terminal import OurFormatter, note
from deeplab2_kmax.wording import did_you_mean, printable

if TYPE_CHECKING:
    from deeplab2_kmax.protos import config_pb2

_HELP = re.compile(r"--?(help|helpshort|h|\?)")
# absl adds these to the help of enum, multi and list flags; argparse's layout says the same.
_OF_ABSL = re.compile(r"^<[^>]*>: |;\s*repeat this option to specify a list of values$|\s*\(a comma separated list\)$")
# absl's error about a required flag that is missing.
_REQUIRED = re.compile(r"flag --(\w+)=None: .*must have a value other than None")
# absl's error about a value that is no number.
_NUMBER = re.compile(r"flag --(\w+)=(.*): (?:invalid literal|could not convert)")
# absl's error about a value that is neither true nor false.
_BOOLEAN = re.compile(r"flag --(\w+)=(.*): \('Non-boolean argument")
# absl's error about a value that is none of several.
_CHOICE = re.compile(r"flag --(\w+)=(.*): value should be one of <(.*)>")


def run_program(work: Callable[[], None], description: str) -> None:
    """Parses the flags of `sys.argv`, which the caller has defined, and calls `work`.

    A user's mistake ends the process with one line on stderr and status 1, Ctrl-C with status 130, SIGTERM with 143 and
    SIGHUP with 129.
    `--help` prints the flags that the main module defines and ends the process with status 0; `--helpfull` prints those
    of all modules.

    Args:
        work: does what the program is for; it finds the values in `absl.flags.FLAGS`.
        description: the start of the help, usually the program's docstring.
    """

    def main(argv: Sequence[str]) -> None:
        # Who asks for another level of messages wants to see their time and place in the code, too.
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)
            logging.get_absl_handler().setFormatter(OurFormatter())
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; flags look like --name=value, see --help")
        work()

    with one_line_for_errors():
        app.run(main, flags_parser=lambda argv: _parse(argv, description))


def _parse(argv: Sequence[str], description: str) -> list[str]:
    """Parses flags; returns the other arguments, and ends the process if help is asked for or a flag is wrong."""
    # Before parsing, as required flags may be missing.
    if any(_HELP.fullmatch(argument) for argument in argv[1:]):
        print(_help(description), end="")
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except SystemExit:
        # absl has printed --helpfull or a relative of it, and ends such a process with status 1.
        sys.exit(0)
    except flags.Error as error:
        sys.exit(printable(f"error: {_in_our_words(error)}"))


def _in_our_words(error: flags.Error) -> str:
    """absl's error about the flags, in the words of our other errors."""
    text = str(error)
    if isinstance(error, flags.UnrecognizedFlagError):
        names = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])]
        meant = did_you_mean(f"--{error.flagname}", [f"--{name}" for name in names])
        return f"unknown flag --{error.flagname}{meant or '; --help lists the flags'}"
    if choice := _CHOICE.match(text):
        names = choice[3].split("|")
        meant = did_you_mean(choice[2], names)
        return f"flag --{choice[1]}: expected one of {', '.join(names)}; got {choice[2]!r}{meant}"
    if flag := _BOOLEAN.match(text):
        return f"flag --{flag[1]}: expected true or false, got {flag[2]!r}; --{flag[1]} alone means true"
    if missing := _REQUIRED.match(text):
        return f"expected the flag --{missing[1]}; --help says what it is"
    if number := _NUMBER.match(text):
        return f"flag --{number[1]}: expected a number, got {number[2]!r}"
    return text.replace("ERROR:: ", "")


def _help(description: str) -> str:
    """The description and the flags of the main module, laid out by argparse."""
    parser = argparse.ArgumentParser(
        prog=_command(),
        usage="%(prog)s --flag=value ...",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("--help", action="help", help="show this help and exit")
    for flag in sorted(flags.FLAGS.get_key_flags_for_module(sys.argv[0]), key=lambda flag: flag.name):
        values = getattr(flag.parser, "enum_values", None)
        text = _OF_ABSL.sub("", flag.help or "")
        if flag.default not in (None, "", []):
            text += f" (default: {flag.default})"
        text = text.replace("%", "%%")  # Else argparse would take it for a placeholder such as %(prog)s.
        if flag.boolean:
            parser.add_argument(f"--[no]{flag.name}", action="store_true", help=text)
        else:
            parser.add_argument(
                f"--{flag.name}", metavar="{" + ",".join(values) + "}" if values else "VALUE", help=text
            )
    return parser.format_help()


def _command() -> str:
    """How the user calls this program."""
    # Set by `python -m`, and None for a file.
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name}" if spec else f"python {os.path.relpath(sys.argv[0])}"


def load_config_and_print_notes(path: str, overrides: Sequence[str]) -> config_pb2.ExperimentOptions:
    """Loads a config for a program or command, and prints on stderr what the user should know about it.

    Args:
        path: see `config.load_config`; likewise `overrides` and the errors.
        overrides: usually the values of the flag --override.
    """
    from deeplab2_kmax.config import find_config, load_with_notes

    config, notes = load_with_notes(path, overrides)
    if (file := find_config(path)) != path:
        note(f"{path} is read from {file}")
    for each in notes:
        if each.told:
            note(each.text)
    return config
