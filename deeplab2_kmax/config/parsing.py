"""Text protos of experiments: one file in, one message out, and back."""

from __future__ import annotations

from google.protobuf import text_format

from deeplab2_kmax import files
from deeplab2_kmax.config.named import similar_names
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2


def parse_config(path: str) -> config_pb2.ExperimentOptions:
    """The text proto at `path` as it stands: no base or override read, nothing filled in, only its syntax checked."""
    try:
        text = files.read_text(path)
    except FileNotFoundError as error:
        names = similar_names(path)
        meant = f"; shipped experiments with a similar name: {', '.join(names)}" if names else ""
        raise ConfigError(f"cannot read the config file {path!r}: no such file{meant}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config file {path!r}: {error}") from error
    try:
        return text_format.Parse(text, config_pb2.ExperimentOptions())
    except text_format.ParseError as error:
        line = error.GetLine()
        source = text.splitlines()[line - 1].strip() if line and line <= len(text.splitlines()) else ""
        message = str(error).split(" : ", 1)[-1].replace('"deeplab2_kmax.', '"')
        where = f"{path}:{line}" if line else path
        raise ConfigError(f"{where}: {message}" + (f"\n    {source}" if source else "")) from error


def config_to_text(config: config_pb2.ExperimentOptions) -> str:
    """The config as text that `load_config` reads back."""
    return text_format.MessageToString(config, use_short_repeated_primitives=True)
