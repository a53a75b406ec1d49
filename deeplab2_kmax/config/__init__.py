"""Experiment configs: read a text proto, apply overrides, fill in what DeepLab2 infers from names, check the result.

    config = load_config("coco/kmax_r50", ["train_dataset_options.batch_size=2"])

Start reading at `load_config`. It goes through these files in this order: `named` (a name becomes a file), `parsing`
and `bases` (text becomes a message, on top of the files that it names in `base`), `overrides` with `input_size` (one
override for all sizes), `support` (whether this model can be built here), `explicit` with its tables `encoders` and
`update_rules` (fields that the file leaves open), and `checks` with `data_checks` and `model_checks` (contradictions,
as `problems` lists them). `field_names` says which field a mistyped name stands for, `notes` what the user should know,
`placeholders` what is still to be filled in. `differences` compares two configs.

Every text config of DeepLab2 parses. Configs of model families that are not implemented here are returned as they are;
only building the model of one raises an error.

What is not here: the settings classes that layers, losses, input pipeline and optimizers work with. They lie beside the
code that uses them, are made from a config by their `from_options`, and take the rules for its fields from this folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.config.bases import base_files, read_with_bases
from deeplab2_kmax.config.checks import check_config
from deeplab2_kmax.config.differences import differences, field_values
from deeplab2_kmax.config.explicit import explicit_fields
from deeplab2_kmax.config.named import find_config
from deeplab2_kmax.config.notes import Note, ignored_fields
from deeplab2_kmax.config.overrides import apply_override
from deeplab2_kmax.config.parsing import config_to_text, parse_config
from deeplab2_kmax.config.problems import refuse
from deeplab2_kmax.config.support import require_supported, unsupported_reason
from deeplab2_kmax.config.value_ranges import range_problems
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2

__all__ = [
    "ConfigError",
    "Note",
    "apply_override",
    "base_files",
    "check_config",
    "config_to_text",
    "differences",
    "explicit_fields",
    "field_values",
    "find_config",
    "load_config",
    "load_with_notes",
    "parse_config",
    "require_supported",
    "unsupported_reason",
]


def load_config(path: files.StrPath, overrides: Iterable[str] = ()) -> config_pb2.ExperimentOptions:
    """Reads the experiment config at `path`.

    Args:
        path: a text-format `ExperimentOptions`, DeepLab2's or ours: a local file, a remote one such as gs://bucket/file,
            or the name of an experiment that comes with the package, such as "coco/kmax_r50".
        overrides: "field.sub_field=value" strings, or one such string, applied on top in their order; a repeated field
            takes "1,2,3", which replaces all of its values. "input_size=641,641" sets all fields that depend on the
            size of the images.

    Returns:
        The config with its bases merged in. Where its model is supported, all fields that DeepLab2 infers are set and
        the config has been checked.

    Raises:
        ConfigError: names the file, and the line, field, base or override at fault.
    """
    config, notes = load_with_notes(path, overrides)
    if (file := find_config(os.fspath(path))) != os.fspath(path):
        logging.info("%s: read from %s", path, file)
    for note in notes:
        logging.info("%s: %s", path, note.text)
    return config


def load_with_notes(
    path: files.StrPath, overrides: Iterable[str] = ()
) -> tuple[config_pb2.ExperimentOptions, list[Note]]:
    """`load_config`, with notes: what was filled in where the files left a field open, and what is ignored."""
    path = os.fspath(path)
    # Else its letters would count as overrides.
    overrides = [overrides] if isinstance(overrides, str) else overrides
    config = read_with_bases(path)
    notes: list[Note] = []
    for override in overrides:
        notes += apply_override(config, override)
    if config.base:
        # Bases have been merged by now: a base named here would be ignored without a word.
        raise ConfigError(f"{path}: base names files to read first; it can be set in a file, not by an override")
    if unsupported_reason(config) is not None:
        # Still of use: such a config can be listed, compared and printed.
        return config, notes
    refuse(range_problems(config), path)  # Before anything computes with the numbers.
    notes += explicit_fields(config)
    check_config(config, path)
    return config, [*notes, *ignored_fields(config)]
