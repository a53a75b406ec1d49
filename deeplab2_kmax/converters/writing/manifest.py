"""The manifest of converted data: a JSON file beside the shards that tells their content and their sources.

    {"splits": {"train": {
       "converter": "coco", "version": ..., "settings": {...}, "source": the folder of the data set,
       "dataset": ..., "label_divisor": ..., "ignore_label": ...,
       "images": ..., "labelled_images": ...,
       "annotations": {file: SHA-256},
       "shards": [{"name", "images", "bytes", "source_sha256"}, ...],
       "classes": [{"id", "name", "images", "segments", "pixels"}, ...],
       "losses": {image: {what its label does not hold of its annotations: how many}}}}}

`source_sha256` is the SHA-256 of the source files of the shard's images, one after the other (image, then label). Void
is among the classes. A crowd region counts as a segment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os.path
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_kmax import __version__, files
from deeplab2_kmax.converters.writing.shard_writer import Receipt
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.records.manifest import MANIFEST

_READ_AT_ONCE = 2**22


@dataclasses.dataclass(frozen=True)
class Origin:
    """What records are made from, and how.

    Attributes:
        converter: the name of the converter.
        descriptor: the data set of the labels.
        settings: the options that decide what is in the records; values that JSON can hold.
        root: the folder of the data set; None if there is none.
        new_descriptor: the file that the descriptor is written to along with the shards; None if it is there already.
    """

    converter: str
    descriptor: DatasetDescriptor
    settings: Mapping[str, Any]
    root: str | None = None
    new_descriptor: str | None = None

    def identity(self) -> str:
        """Text that is equal for two origins only if they make equal records of equal items."""
        parts = [self.converter, __version__, dict(self.settings), dataclasses.asdict(self.descriptor)]
        return json.dumps(parts, sort_keys=True)


def write_splits(folder: str, splits: Mapping[str, Any]) -> None:
    """Writes the manifest of a folder anew, atomically, with these entries."""
    files.write_json(files.join(folder, MANIFEST), {"splits": dict(splits)}, indent=1)


def checksums(paths: Sequence[str], root: str | None) -> dict[str, str]:
    """The SHA-256 of each file.

    Args:
        paths: the files.
        root: the folder that they lie in, or None.

    Returns:
        {path below `root`, or if that is None the whole path: SHA-256 as hexadecimal text}.

    Raises:
        DataError: a file cannot be read.
    """
    found = {}
    for path in paths:
        digest = hashlib.sha256()
        try:
            with files.open_to_read(path) as file:
                while block := file.read(_READ_AT_ONCE):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{path}: cannot read the file: {error.strerror}") from error
        found[os.path.relpath(path, root) if root else path] = digest.hexdigest()
    return found


def split_entry(origin: Origin, annotations: Mapping[str, str], receipts: Mapping[str, Receipt]) -> dict[str, Any]:
    """Makes the entry of a split in the manifest.

    Args:
        origin: what its records are made from.
        annotations: `checksums` of the annotation files that the whole split shares.
        receipts: {name of the shard: its receipt}.
    """
    descriptor = origin.descriptor
    labelled = sum(receipt.labelled for receipt in receipts.values())
    entry = {
        "converter": origin.converter,
        "version": __version__,
        "settings": dict(origin.settings),
        "source": files.absolute(origin.root) if origin.root else None,
        "dataset": descriptor.name,
        "label_divisor": descriptor.label_divisor,
        "ignore_label": descriptor.ignore_label,
        "images": sum(receipt.records for receipt in receipts.values()),
        "labelled_images": labelled,
        "annotations": dict(annotations),
        "shards": [
            {"name": name, "images": r.records, "bytes": r.size, "source_sha256": r.source_sha256}
            for name, r in receipts.items()
        ],
    }
    if labelled:
        entry["classes"] = _classes(descriptor, list(receipts.values()))
    losses = {name: counts for receipt in receipts.values() for name, counts in receipt.losses.items()}
    if losses:
        entry["losses"] = losses
    return entry


def _classes(descriptor: DatasetDescriptor, receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
    """How often each class, and void, occurs in all shards together."""
    names = {c.id: c.name for c in descriptor.classes}
    names[descriptor.ignore_label] = "void"
    rows = []
    for class_id, name in sorted(names.items()):
        counts = [receipt.classes.get(str(class_id), (0, 0, 0)) for receipt in receipts]
        images, segments, pixels = (sum(column) for column in zip(*counts))
        rows.append({"id": class_id, "name": name, "images": images, "segments": segments, "pixels": pixels})
    return rows
