"""Experiment configs: read a text proto, apply overrides, make implicit choices explicit, check.

    config = load_config("configs/coco/kmax_r50.textproto", ["train_dataset_options.batch_size=2"])

Every text config of DeepLab2 parses. For the families that are implemented, `load_config` then fills in what DeepLab2
infers from names (see `explicit_fields`) and checks the result, so that mistakes surface before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterable

from absl import logging
from google.protobuf import text_format

from deeplab2_kmax.config.checks import check_config
from deeplab2_kmax.config.explicit import explicit_fields
from deeplab2_kmax.config.overrides import apply_override
from deeplab2_kmax.config.support import require_supported, unsupported_reason
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2

__all__ = [
    "ConfigError",
    "apply_override",
    "check_config",
    "config_to_text",
    "explicit_fields",
    "load_config",
    "parse_config",
    "require_supported",
    "unsupported_reason",
]


def load_config(path: str, overrides: Iterable[str] = ()) -> config_pb2.ExperimentOptions:
    """Reads the experiment config at `path`.

    Args:
        path: a text-format `ExperimentOptions`, DeepLab2's or ours.
        overrides: "field.sub_field=value" strings applied on top; repeated fields take "1,2,3", replacing all values.

    Returns:
        The config. Where its model is supported, all fields DeepLab2 infers are set and the config has been checked.

    Raises:
        ConfigError: naming the file, and the line, field or override at fault.
    """
    config = parse_config(path)
    for override in overrides:
        apply_override(config, override)
    if unsupported_reason(config) is None:
        for note in explicit_fields(config):
            logging.info("%s: %s", path, note)
        check_config(config, path)
    return config


def parse_config(path: str) -> config_pb2.ExperimentOptions:
    """The text proto at `path` as it stands: no override, nothing filled in, nothing checked beyond its syntax."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
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
    return text_format.MessageToString(config)
