"""Finds the TFRecord files of a data set, which are called shards."""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
from collections.abc import Sequence

from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records.manifest import MANIFEST, faults_of_manifests, faults_of_sizes
from deeplab2_kmax.records.tfrecord import FRAME_BYTES
from deeplab2_kmax.wording import counted, some_of

# How shards are numbered, by our converters as by DeepLab2's: train-00002-of-00004.tfrecord.
_NUMBERED = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)", re.DOTALL)
_NAMED_AT_MOST = 3
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
        DataError: no file matches, all that match are empty, or one is too small for any record, a folder, a pipe, or a
            link to nothing. The message names the patterns, the working directory they are relative to, and the command
            that makes the records.
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
    _require_files(shards)
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


def _require_files(shards: Sequence[str]) -> None:
    for shard in shards:
        try:
            kind = files.special_kind(shard)
        except FileNotFoundError:
            kind = f"a link to {os.readlink(shard)}, which is not there" if os.path.islink(shard) else "none any more"
        if kind:
            raise DataError(f"{shard}: expected a TFRecord file, got {kind}; copy or fetch the file, or convert again")


def _may_be_shard(name: str) -> bool:
    # Patterns find hidden files, such as macOS leaves, in remote folders, and `records/*` finds the manifest.
    return not name.startswith(".") and name != MANIFEST


def find_whole_shards(file_patterns: Sequence[str], dataset: str, is_tolerant: bool = False) -> list[str]:
    """The files of `find_shards`, of which none is missing and none was cut, as far as names and manifests tell.

    Args:
        file_patterns: as in `find_shards`.
        dataset: as in `find_shards`.
        is_tolerant: whether such a fault is only warned of, as where bad records may be left out.

    Raises:
        DataError: as in `find_shards`; or files of a numbered set are missing; or a file has another size than when it
            was written.
    """
    shards = find_shards(file_patterns, dataset)
    for numbered, fault in faults_of_numbers(shards, file_patterns).items():
        if not is_tolerant:
            raise DataError(
                f"{numbered}: {fault}; copy the whole set or convert again. To use a part of the files on purpose,"
                " let file_pattern name these only"
            )
        logging.warning("%s: %s", numbered, fault)
    for manifest, fault in faults_of_manifests(shards).items():
        logging.warning("%s: %s", manifest, fault)
    for shard, fault in faults_of_sizes(shards).items():
        if not is_tolerant:
            raise DataError(
                f"{shard}: {fault}; copy the file again or convert again. If you changed it on purpose, remove its"
                f" {MANIFEST}"
            )
        logging.warning("%s: %s", shard, fault)
    return shards


def faults_of_numbers(shards: Sequence[str], file_patterns: Sequence[str]) -> dict[str, str]:
    """The numbered sets of files, `train-00000-of-00004.tfrecord` and so on, of which some are missing or too many.

    A number that no pattern asks for is not missing: `train-0000[01]-of-00004.tfrecord` takes a part on purpose.

    Args:
        shards: the paths that were found, local or remote.
        file_patterns: the glob patterns that found them.

    Returns:
        {path of the set, with * for the number: what was expected and what is there, as a sentence without the path}.
    """
    there: dict[tuple[str, str, str], set[int]] = {}
    for shard in shards:
        if match := _NUMBERED.fullmatch(shard):
            start, number, count, end = match.groups()
            there.setdefault((start, count, end), set()).add(int(number))
    # Names without folders, because what was found may spell a folder in another way than the pattern.
    wanted = [posixpath.basename(pattern) for pattern in file_patterns]
    faults = {}
    for (start, count, end), numbers in there.items():
        absent = (f"{start}-{number:05}-of-{count}{end}" for number in range(int(count)) if number not in numbers)
        names = [posixpath.basename(path) for path in absent]
        missing = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)]
        beyond = [f"{number:05}" for number in sorted(numbers) if number >= int(count)]
        if beyond:
            faults[f"{start}-*-of-{count}{end}"] = (
                f"expected numbers below {count}, got {some_of(beyond, _NAMED_AT_MOST)}, as if two sets were mixed"
            )
        elif missing:
            faults[f"{start}-*-of-{count}{end}"] = (
                f"expected {counted(len(numbers) + len(missing), 'file')}, got {len(numbers)} without"
                f" {some_of(missing, _NAMED_AT_MOST)}"
            )
    return faults


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
