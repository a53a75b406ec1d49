"""Text protos of experiments: one file in, one message out, and back."""

from __future__ import annotations

from google.protobuf import text_format

from deeplab2_kmax import files
from deeplab2_kmax.config.named import similar_names
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.wording import first_line


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
        meant = f"; shipped configs with a similar name: {', '.join(names)}" if names else ""
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
        source = text.splitlines()[line - 1].strip() if line and line <= len(text.splitlines()) else ""
        # The parser's text is "3:5 : Message type "deeplab2_kmax.X" has no ..."; place and package say nothing new.
        message = str(error).split(" : ", 1)[-1].replace('"deeplab2_kmax.', '"')
        where = f"{path}:{line}" if line else path
        raise ConfigError(f"{where}: {message}" + (f"\n    {source}" if source else "")) from error


def config_to_text(config: config_pb2.ExperimentOptions) -> str:
    """The config as text that `load_config` reads back."""
    return text_format.MessageToString(config, use_short_repeated_primitives=True)
