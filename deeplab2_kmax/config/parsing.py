"""Text protos of experiments: one file in, one message out, and back."""

from __future__ import annotations

import re

from google.protobuf import text_format

from deeplab2_kmax import files
from deeplab2_kmax.config.field_names import unknown_field, unknown_value
from deeplab2_kmax.config.named import similar_names
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.wording import first_line, shortened

# What the text format's parser says of names that do not exist.
_NO_FIELD = re.compile(r'Message type "([\w.]+)" has no field named "(\w+)"')
_NO_VALUE = re.compile(r'Enum type "([\w.]+)" has no value (?:named|with number) (\w+)')
_NO_NUMBER = re.compile(r"Couldn't parse (integer|float): (.*)")
_NO_STRING = re.compile(r"Expected string but found: (.*)")
# trainer_options.steps_per_loop: 3, as an override has it.
_DOTTED = re.compile(r"\w+\.\w")
# The letters of a line at fault that a message shows.
_LONGEST_SHOWN = 200


def parse_config(path: str) -> config_pb2.ExperimentOptions:
    """Parses one text proto as it stands: without bases and overrides, nothing filled in, only its syntax checked.

    Args:
        path: a local or remote file.

    Raises:
        ConfigError: the file cannot be read, or is not a config; names the file, and line and source of a mistake.
    """
    try:
        text = files.read_text(path)
    except FileNotFoundError as error:
        names = similar_names(path)
        meant = f"; did you mean {' or '.join(names)}?" if names else ""
        raise ConfigError(f"cannot read the config file {path!r}: no such file{meant}") from error
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path!r}: {error.strerror or first_line(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"cannot read the config file {path!r}: expected UTF-8 text, got other bytes at {error.start}"
        ) from error
    try:
        return text_format.Parse(text, config_pb2.ExperimentOptions())
    except text_format.ParseError as error:
        line = error.GetLine()
        source = text.splitlines()[line - 1] if line and line <= len(text.splitlines()) else ""
        where = f"{path}:{line}" if line else path
        shown = f"\n    {shortened(source.strip(), _LONGEST_SHOWN)}" if source.strip() else ""
        if _is_model_options(text):
            raise ConfigError(
                f"{path}: expected an experiment (ExperimentOptions), got a bare ModelOptions; put it into"
                " model_options { ... }, beside trainer_options, train_dataset_options and their kin"
            ) from error
        raise ConfigError(f"{where}: {_in_our_words(str(error), source)}{shown}") from error


def _in_our_words(message: str, source: str) -> str:
    """The parser's message, without what `parse_config` says anyway, and with what may have been meant.

    Args:
        message: such as `3:5 : Message type "deeplab2_kmax.ModelOptions" has no field named "backbnoe".`
        source: the line at fault.
    """
    message = message.split(" : ", 1)[-1]
    # Some messages quote the line, which stands below ours.
    message = message.removeprefix(f"'{source}': ").removeprefix(f"'{source.strip()}': ")
    pool = config_pb2.DESCRIPTOR.pool
    if found := _NO_FIELD.search(message):
        return unknown_field(pool.FindMessageTypeByName(found[1]), found[2])
    if found := _NO_VALUE.search(message):
        return f"expected {unknown_value(pool.FindEnumTypeByName(found[1]), found[2])}"
    if found := _NO_NUMBER.search(message):
        return f"expected {'an integer' if found[1] == 'integer' else 'a number'}, got {found[2]!r}"
    if found := _NO_STRING.search(message):
        return f"expected text in quotes, got {found[1]}"
    if _DOTTED.match(source.strip()):
        return "expected message { field: value }; paths with dots are for --override"
    return message.replace('"deeplab2_kmax.', '"')


def _is_model_options(text: str) -> bool:
    """Whether this is the text of a `ModelOptions`, as one of DeepLab2's examples is."""
    try:
        text_format.Parse(text, config_pb2.ModelOptions())
    except text_format.ParseError:
        return False
    return True


def config_to_text(config: config_pb2.ExperimentOptions) -> str:
    """The config as text that `load_config` reads back."""
    return text_format.MessageToString(config, use_short_repeated_primitives=True)
