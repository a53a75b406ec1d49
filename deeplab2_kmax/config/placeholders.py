"""Placeholders such as "${TRAIN_SET}", which DeepLab2's experiment files leave to be filled in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection

from deeplab2_kmax.config.differences import field_values
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2

_PLACEHOLDER = re.compile(r"\$\{[^}]*\}")
# Field -> what it stands for.
_MEANINGS = {
    "experiment_name": "the run's folder below --model_dir",
    "train_dataset_options.file_pattern": "the TFRecord files to train on",
    "eval_dataset_options.file_pattern": "the TFRecord files to evaluate on",
    "model_options.initial_checkpoint": "the weights to start from; in training, nothing behind = means random ones",
    "model_options.backbone.pretrained_weights": "pretrained weights of the encoder; nothing behind = means none",
}


def placeholders(config: config_pb2.ExperimentOptions) -> dict[str, str]:
    """{path of a field: its placeholders} of all fields that have some, in the order of a config."""
    found = {path: _PLACEHOLDER.findall(value) for path, value in field_values(config).items()}
    return {path: ", ".join(names) for path, names in found.items() if names}


def require_filled_in(config: config_pb2.ExperimentOptions, purpose: str, unused: Collection[str]) -> None:
    """Checks that there is no placeholder left in a field that is used.

    Args:
        config: the config.
        purpose: what it is used for; the message says so.
        unused: paths of fields and messages that are not used.

    Raises:
        ConfigError: lists all placeholders, with the flags that fill them in.
    """
    found = placeholders(config)
    later = {path: name for path, name in found.items() if any(f"{path}.".startswith(f"{each}.") for each in unused)}
    needed = {path: name for path, name in found.items() if path not in later}
    if not needed:
        return
    lines = [f"placeholders to fill in for {purpose}, in the file or by these flags, with values of yours:"]
    for path, name in needed.items():
        flag = shlex.quote(f"--override={path}={_example(config, path)}")
        lines += [f"    {flag}", f"        {name}{': ' if path in _MEANINGS else ''}{_MEANINGS.get(path, '')}"]
    if later:
        lines.append(f"    not needed for {purpose}: {', '.join(f'{path} {name}' for path, name in later.items())}")
    raise ConfigError("\n".join(lines))


def unused_beside(config: config_pb2.ExperimentOptions, field: str) -> list[str]:
    """For `require_filled_in`: the paths of all placeholders, where only fields of this name are used."""
    return [path for path in placeholders(config) if path.rpartition(".")[2] != field]


def _example(config: config_pb2.ExperimentOptions, path: str) -> str:
    """A value as a user might fill it in: one that works if the records lie where the documentation puts them."""
    message, _, field = path.rpartition(".")
    dataset = (config.train_dataset_options.dataset or config.eval_dataset_options.dataset).removesuffix("_panoptic")
    folder = "my" if dataset.endswith(".json") or not dataset else dataset
    if field == "file_pattern":
        return f"data/{folder}/{'train' if message.startswith('train') else 'val'}-*.tfrecord"
    if field == "experiment_name":
        return f"{folder}_{config.model_options.backbone.name}"
    return "checkpoints/ckpt-1000" if field == "initial_checkpoint" else "..."
