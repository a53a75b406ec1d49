"""Finding the TFRecord files of a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence

import tensorflow as tf

from deeplab2_kmax.errors import DataError

_COMMANDS = {
    "ade20k_panoptic": "python -m deeplab2_kmax.converters.ade20k --ade20k_root=... --output_dir=...",
    "cityscapes_panoptic": "python -m deeplab2_kmax.converters.cityscapes --cityscapes_root=... --output_dir=...",
    "coco_panoptic": "python -m deeplab2_kmax.converters.coco --coco_root=... --output_dir=...",
    "shapes": "python -m deeplab2_kmax.converters.shapes --output_dir=...",
}


def find_shards(file_patterns: Sequence[str], dataset: str) -> list[str]:
    """The files that match any of the glob patterns, each once, sorted.

    A data set may have empty shards (a converter with more shards than images writes them), but not only those.

    Raises:
        DataError: nothing matches, or all that matches is empty. The message names the patterns, the working
            directory they are relative to, and the command that makes the records.
    """
    shards = sorted({path for pattern in file_patterns for path in tf.io.gfile.glob(pattern)})
    patterns = ", ".join(repr(pattern) for pattern in file_patterns)
    if not shards:
        raise DataError(
            f"no TFRecord file matches file_pattern {patterns} (working directory {os.getcwd()}); {_remedy(dataset)}"
        )
    if not any(tf.io.gfile.stat(shard).length for shard in shards):
        raise DataError(
            f"the {len(shards)} file(s) that match file_pattern {patterns} hold no records, e.g. {shards[0]} is empty"
            f" (0 bytes); {_remedy(dataset)}"
        )
    return shards


def filled_shards(shards: Sequence[str]) -> list[str]:
    """Those of the files that hold anything."""
    return [shard for shard in shards if tf.io.gfile.stat(shard).length]


def _remedy(dataset: str) -> str:
    if dataset in _COMMANDS:
        return f"make the records with: {_COMMANDS[dataset]}"
    return (
        f"make the records of {dataset!r} with deeplab2-kmax convert folder or convert coco_panoptic"
        " (docs/your_own_dataset.md), or with DeepLab2's converters"
    )
