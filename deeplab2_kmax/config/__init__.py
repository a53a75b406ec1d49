"""Experiment configs: read a text proto, apply overrides, make implicit choices explicit, check.

    config = load_config("coco/kmax_r50", ["train_dataset_options.batch_size=2"])

Every text config of DeepLab2 parses. A config may build on others (see `bases`). For the families that are implemented,
`load_config` then fills in what DeepLab2 infers from names (see `explicit_fields`) and checks the result, so that
mistakes surface before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterable

from absl import logging

from deeplab2_kmax.config.bases import base_files, read_with_bases
from deeplab2_kmax.config.checks import check_config
from deeplab2_kmax.config.differences import differences, field_values
from deeplab2_kmax.config.explicit import explicit_fields
from deeplab2_kmax.config.overrides import apply_override
from deeplab2_kmax.config.parsing import config_to_text, parse_config
from deeplab2_kmax.config.support import require_supported, unsupported_reason
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2

__all__ = [
    "ConfigError",
    "apply_override",
    "base_files",
    "check_config",
    "config_to_text",
    "differences",
    "explicit_fields",
    "field_values",
    "load_config",
    "load_with_notes",
    "parse_config",
    "require_supported",
    "unsupported_reason",
]


def load_config(path: str, overrides: Iterable[str] = ()) -> config_pb2.ExperimentOptions:
    """Reads the experiment config at `path`.

    Args:
        path: a text-format `ExperimentOptions`, DeepLab2's or ours; a local file, a remote one such as gs://bucket/file,
            or the name of a shipped experiment such as "coco/kmax_r50".
        overrides: "field.sub_field=value" strings applied on top; repeated fields take "1,2,3", replacing all values.

    Returns:
        The config, its bases merged in. Where its model is supported, all fields DeepLab2 infers are set and the config
        has been checked.

    Raises:
        ConfigError: naming the file, and the line, field, base or override at fault.
    """
    config, notes = load_with_notes(path, overrides)
    for note in notes:
        logging.info("%s: %s", path, note)
    return config


def load_with_notes(path: str, overrides: Iterable[str] = ()) -> tuple[config_pb2.ExperimentOptions, list[str]]:
    """`load_config`, with one sentence for each group of fields that the files left open and that was filled in."""
    config = read_with_bases(path)
    for override in overrides:
        apply_override(config, override)
    if config.base:
        raise ConfigError(f"{path}: base names files to read first; it is set in a file, not by an override")
    if unsupported_reason(config) is not None:
        return config, []
    notes = explicit_fields(config)
    check_config(config, path)
    return config, notes
