"""Finds the TFRecord files of a data set, which are called shards."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence

from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records.manifest import MANIFEST, faults_of_sizes
from deeplab2_kmax.records.tfrecord import FRAME_BYTES
from deeplab2_kmax.wording import counted

_COMMANDS = {
    "ade20k_panoptic": "python -m deeplab2_kmax.converters.ade20k --ade20k_root=... --output_dir=",
    "cityscapes_panoptic": "python -m deeplab2_kmax.converters.cityscapes --cityscapes_root=... --output_dir=",
    "coco_panoptic": "python -m deeplab2_kmax.converters.coco --coco_root=... --output_dir=",
    "shapes": "python -m deeplab2_kmax.converters.shapes --output_dir=",
}


def find_shards(file_patterns: Sequence[str], dataset: str) -> list[str]:
    """The files that match any of the patterns, each once, sorted; without manifests and hidden files.

    Some of the files may be empty, as DeepLab2's converters write more shards than a small data set has images.

    Args:
        file_patterns: glob patterns of local or remote paths.
        dataset: name or descriptor file of the data set, for the advice in the message of an error.

    Raises:
        DataError: no file matches, all that match are empty, or one is too small for any record. The message names the
            patterns, the working directory they are relative to, and the command that makes the records.
    """
    if unfilled := [pattern for pattern in file_patterns if "${" in pattern]:
        raise DataError(
            f"file_pattern {unfilled[0]!r} is a placeholder; fill in the pattern of the TFRecord files, such as"
            " data/coco/train-*.tfrecord"
        )
    found = {path for pattern in file_patterns for path in files.glob(pattern)}
    shards = sorted(path for path in found if _may_be_shard(posixpath.basename(path)))
    patterns = ", ".join(repr(pattern) for pattern in file_patterns)
    if not shards:
        raise DataError(
            f"no TFRecord file matches file_pattern {patterns} (working directory {os.getcwd()});"
            f" {_remedy(dataset, file_patterns[0])}"
        )
    sizes = {shard: files.size(shard) for shard in shards}
    for shard, size in sizes.items():
        # TensorFlow takes such a file for one without records, and training would wait for the first record for ever.
        if 0 < size < FRAME_BYTES:
            raise DataError(
                f"{shard}: expected a TFRecord file, got {counted(size, 'byte')}, fewer than any record has; copy the"
                " file or convert again"
            )
    if not any(sizes.values()):
        raise DataError(
            f"file_pattern {patterns} matches {counted(len(shards), 'file')} without any records, e.g. {shards[0]} is"
            f" empty (0 bytes); {_remedy(dataset, file_patterns[0])}"
        )
    return shards


def _may_be_shard(name: str) -> bool:
    # Patterns find hidden files, such as macOS leaves, in remote folders, and `records/*` finds the manifest.
    return not name.startswith(".") and name != MANIFEST


def find_whole_shards(file_patterns: Sequence[str], dataset: str, is_tolerant: bool = False) -> list[str]:
    """The files of `find_shards`, of which none was cut as far as the manifests beside them tell.

    Args:
        file_patterns: as in `find_shards`.
        dataset: as in `find_shards`.
        is_tolerant: whether a file of another size is only warned of, as where bad records may be left out.

    Raises:
        DataError: as in `find_shards`; or a file has another size than when it was written.
    """
    shards = find_shards(file_patterns, dataset)
    for shard, fault in faults_of_sizes(shards).items():
        if not is_tolerant:
            raise DataError(
                f"{shard}: {fault}; copy the file again or convert again. If you changed it on purpose, remove its"
                f" {MANIFEST}"
            )
        logging.warning("%s: %s", shard, fault)
    return shards


def filled_shards(shards: Sequence[str]) -> list[str]:
    """Those of the files that are not empty."""
    return [shard for shard in shards if files.size(shard)]


def _remedy(dataset: str, pattern: str) -> str:
    """The command that makes the records of a data set where the pattern looks for them."""
    if dataset in _COMMANDS:
        folder = files.parent(pattern)
        return f"make the records with: {_COMMANDS[dataset]}{'...' if not folder or '*' in folder else folder}"
    return (
        f"make the records of {dataset!r} with deeplab2-kmax convert folder or convert coco_panoptic"
        " (docs/your_own_dataset.md), or with DeepLab2's converters"
    )
