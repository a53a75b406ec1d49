"""The manifest that conversion leaves beside its shards, and what it tells about shards that are no longer whole.

A shard that was cut where a record ends looks complete; only its size tells that records are missing. So whoever reads
shards compares their sizes with those that were written. `converters.writing.manifest` describes the file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Any, NamedTuple

from deeplab2_kmax import files
from deeplab2_kmax.wording import counted

MANIFEST = "manifest.json"


class ShardSize(NamedTuple):
    """What a manifest tells about a shard: the number of its records, and of its bytes."""

    records: int
    size: int


def read_splits(folder: str) -> dict[str, Any]:
    """{split: its entry} of the manifest in a folder; empty if there is no manifest, or a broken one."""
    path = files.join(folder, MANIFEST)
    try:
        if files.special_kind(path):  # Reading a pipe would wait for ever.
            return {}
        splits = files.read_json(path)["splits"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return splits if isinstance(splits, dict) else {}


def written_sizes(folder: str) -> dict[str, ShardSize]:
    """{name of a shard: its size when it was written}, as far as the manifest in a folder tells."""
    sizes = {}
    for entry in read_splits(folder).values():
        shards = entry.get("shards") if isinstance(entry, dict) else None
        for shard in shards if isinstance(shards, list) else []:
            try:
                sizes[str(shard["name"])] = ShardSize(int(shard["images"]), int(shard["bytes"]))
            except (KeyError, TypeError, ValueError):
                continue  # Another program's manifest, which tells nothing.
    return sizes


def written_datasets(folder: str) -> dict[str, str]:
    """{name of a shard: the data set it was made for}, as far as the manifest in a folder tells."""
    found = {}
    for entry in read_splits(folder).values():
        dataset = entry.get("dataset") if isinstance(entry, dict) else None
        shards = entry.get("shards") if isinstance(entry, dict) else None
        for shard in shards if isinstance(shards, list) else []:
            if isinstance(shard, dict) and isinstance(dataset, str):
                found[str(shard.get("name"))] = dataset
    return found


def faults_of_manifests(shards: Sequence[str]) -> dict[str, str]:
    """The manifests beside shards that tell nothing, so that nobody would notice shards that were cut.

    Args:
        shards: paths, local or remote.

    Returns:
        {path of the manifest: what was expected and what to do, as a sentence without the path}.
    """
    manifests = {folder: files.join(folder, MANIFEST) for folder in map(files.parent, shards)}
    return {
        path: "expected the manifest that conversion writes, got something else, so the sizes of the files cannot be"
        " compared with it; copy it again, or remove it if it is not about them"
        for folder, path in manifests.items()
        if files.exists(path) and not read_splits(folder)
    }


def faults_of_sizes(shards: Sequence[str]) -> dict[str, str]:
    """The shards that have another size than when they were written, by the manifests beside them.

    Args:
        shards: paths, local or remote.

    Returns:
        {path: what was expected and what is there, as a sentence without the path}.
    """
    written: dict[str, dict[str, ShardSize]] = {}
    faults = {}
    for shard in shards:
        folder, name = files.parent(shard), posixpath.basename(shard)
        if folder not in written:
            written[folder] = written_sizes(folder)
        expected, size = written[folder].get(name), files.size(shard)
        if expected is not None and size != expected.size:
            faults[shard] = (
                f"expected {counted(expected.size, 'byte')} with {counted(expected.records, 'record')} as the"
                f" {MANIFEST} beside it says, got {counted(size, 'byte')}"
            )
    return faults
