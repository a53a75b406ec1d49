"""The manifest of converted data: a JSON file beside the shards that says what they hold and what they were made from.

    {"splits": {"train": {
       "converter": "coco", "version": ..., "settings": {...}, "source": the data set's folder,
       "dataset": ..., "label_divisor": ..., "ignore_label": ...,
       "images": ..., "labelled_images": ...,
       "annotations": {file: SHA-256},
       "shards": [{"name", "images", "bytes", "source_sha256"}, ...],
       "classes": [{"id", "name", "images", "segments", "pixels"}, ...]}}}

`source_sha256` is that of the source files of the shard's images, one after the other (image, then label). Among the
classes is void. A crowd region counts as a segment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab2_kmax import __version__
from deeplab2_kmax.converters.writing.shard_writer import Receipt
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.errors import DataError

MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Origin:
    """What records are made from and how.

    Attributes:
        converter: its name.
        descriptor: the data set whose labels it writes.
        settings: the options that change records, as JSON can hold them.
        root: the folder of the source; None where there is none.
    """

    converter: str
    descriptor: DatasetDescriptor
    settings: Mapping[str, Any]
    root: str | None = None

    def identity(self) -> str:
        """Text that is equal for origins that make equal records of equal items."""
        parts = [self.converter, __version__, dict(self.settings), dataclasses.asdict(self.descriptor)]
        return json.dumps(parts, sort_keys=True)


def read_splits(folder: str) -> dict[str, Any]:
    """The entries of the folder's manifest by split; none where there is no manifest or none that can be read."""
    try:
        with open(os.path.join(folder, MANIFEST), encoding="utf-8") as file:
            splits = json.load(file)["splits"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return splits if isinstance(splits, dict) else {}


def write_splits(folder: str, splits: Mapping[str, Any]) -> None:
    """Puts a manifest with these entries in the place of the folder's at one blow."""
    path = os.path.join(folder, MANIFEST)
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        json.dump({"splits": dict(splits)}, file, indent=1)
        file.write("\n")
    os.replace(f"{path}.part", path)


def checksums(paths: Sequence[str], root: str | None) -> dict[str, str]:
    """SHA-256 of each file, by its path below `root`.

    Raises:
        DataError: a file cannot be read.
    """
    found = {}
    for path in paths:
        digest = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{path}: cannot read the file: {error.strerror}") from error
        found[os.path.relpath(path, root) if root else path] = digest.hexdigest()
    return found


def split_entry(origin: Origin, annotations: Mapping[str, str], receipts: Mapping[str, Receipt]) -> dict[str, Any]:
    """The manifest's entry of a split.

    Args:
        origin: of its records.
        annotations: `checksums` of the files that hold for the whole split.
        receipts: of its shards, by name.
    """
    descriptor = origin.descriptor
    labelled = sum(receipt.labelled for receipt in receipts.values())
    entry = {
        "converter": origin.converter,
        "version": __version__,
        "settings": dict(origin.settings),
        "source": os.path.abspath(origin.root) if origin.root else None,
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
    return entry


def _classes(descriptor: DatasetDescriptor, receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
    names = {c.id: c.name for c in descriptor.classes}
    names[descriptor.ignore_label] = "void"
    rows = []
    for class_id, name in sorted(names.items()):
        counts = [receipt.classes.get(str(class_id), (0, 0, 0)) for receipt in receipts]
        images, segments, pixels = (sum(column) for column in zip(*counts))
        rows.append({"id": class_id, "name": name, "images": images, "segments": segments, "pixels": pixels})
    return rows
