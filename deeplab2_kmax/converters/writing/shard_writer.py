"""Writes one shard, in this process or in a worker, unless an earlier run has finished it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Union

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.stop_signals import end_with_parent
from deeplab2_kmax.storage_errors import storage_fault
from deeplab2_kmax.wording import first_line

_RECEIPT = ".json"


class NotedRecord(NamedTuple):
    """A record, and what its label does not hold of the annotations that it was made from.

    Attributes:
        record: a serialized tf.train.Example.
        name: the name of its image.
        losses: {what: how many}, such as pixels of things below others.
    """

    record: bytes
    name: str
    losses: Mapping[str, int]


# Makes the record of an item.
MakeRecord = Callable[[Any], Union[bytes, NotedRecord]]


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to be written.

    Attributes:
        path: the file to write.
        moved_path: the path that the shard gets once all shards are finished. It may be there already, if an earlier
            run was interrupted while it moved the shards.
        items: one for each record, values that JSON can hold.
        make_record: makes the record, a serialized tf.train.Example, of an item; may note what got lost.
        source_files: the files that the record of an item is made from.
        identity: text that holds everything else that decides what is in the records.
        label_divisor: the label divisor of the panoptic labels.
    """

    path: str
    moved_path: str
    items: Sequence[Any]
    make_record: MakeRecord
    source_files: Callable[[Any], Sequence[str]]
    identity: str
    label_divisor: int


@dataclasses.dataclass(frozen=True)
class Receipt:
    """The content of a finished shard; lies beside it as a JSON file until all shards are finished.

    Attributes:
        fingerprint: a hash of everything that the records were made from.
        records: the number of records.
        labelled: the number of records that have a label.
        size: the size of the shard in bytes.
        source_sha256: the SHA-256 of all source files, one after the other; None if there are none.
        classes: {class id as text: [images, segments, pixels]}, void included.
        losses: {name of the image: {what: how many}}, see `NotedRecord`.
    """

    fingerprint: str
    records: int
    labelled: int
    size: int
    source_sha256: str | None
    classes: dict[str, list[int]]
    losses: dict[str, dict[str, int]]


class Progress(Protocol):
    """How a writer of shards tells how far it is, and is told to stop."""

    def advance(self, records: int) -> None:
        """Adds to the number of records that are written."""

    def should_stop(self) -> bool:
        """Whether to give up the shard."""


class Stopped(Exception):
    """A writer was told to stop, and gave up its shard."""


_progress: Progress | None = None


def begin_work(progress: Progress, in_other_process: bool) -> None:
    """Prepares a process or thread for `write_shard`."""
    global _progress
    _progress = progress
    if in_other_process:
        # Else it would go on writing into the folder of the next run.
        end_with_parent()


def write_shard(task: ShardTask) -> tuple[Receipt, bool]:
    """Writes a shard, unless an earlier run has made it from the same sources and settings.

    Returns:
        The receipt of the shard, and whether it was there already.

    Raises:
        DataError: `make_record` raises it, a source file is gone, or the shard cannot be written.
        Stopped: told so by the progress of `begin_work`; the shard is not there.
    """
    assert _progress is not None, "begin_work comes first"
    fingerprint = _fingerprint(task)
    receipt = _finished(task, fingerprint)
    if receipt is not None:
        _progress.advance(len(task.items))
        return receipt, True
    return _write(task, fingerprint, _progress), False


def finished_receipt(task: ShardTask) -> Receipt | None:
    """The receipt of a shard that an earlier run has made from the same sources and settings, or None.

    Raises:
        DataError: a source file is gone.
    """
    if not files.exists(task.path + _RECEIPT):
        return None  # Saves a look at all source files.
    return _finished(task, _fingerprint(task))


def _fingerprint(task: ShardTask) -> str:
    """A hash of items, settings, and the name, size and time of change of each source file."""
    digest = hashlib.sha256(f"{task.identity}\n{json.dumps(list(task.items), sort_keys=True)}\n".encode())
    for item in task.items:
        for path in task.source_files(item):
            try:
                size, changed = files.change_stamp(path)[:2]
            except OSError as error:
                raise DataError(f"{path}: cannot read the file: {error.strerror}") from error
            digest.update(f"{path}\0{size}\0{changed}\n".encode())
    return digest.hexdigest()


def _finished(task: ShardTask, fingerprint: str) -> Receipt | None:
    """The receipt of the shard, if it has this fingerprint and the shard has the size that it tells."""
    path = task.path if files.exists(task.path) else task.moved_path
    try:
        receipt = Receipt(**json.loads(files.read_text(task.path + _RECEIPT)))
        is_whole = receipt.fingerprint == fingerprint and receipt.size == files.size(path)
    except (OSError, ValueError, TypeError):
        return None
    return receipt if is_whole else None


def _write(task: ShardTask, fingerprint: str, progress: Progress) -> Receipt:
    """Writes the shard, and after it its receipt."""
    import tensorflow as tf  # Late, so that a mistake in the flags is reported at once.

    contents = _Contents(task)
    receipt_path = task.path + _RECEIPT
    try:
        # At no time may there be a new shard with an old receipt, which might describe it by chance.
        files.remove(receipt_path)
        # Atomic, also because Apache Beam may try a shard again while a first worker, thought lost, still writes it.
        with files.atomic_path(task.path) as part:
            with tf.io.TFRecordWriter(part) as writer:
                for item in task.items:
                    if progress.should_stop():
                        raise Stopped
                    made = task.make_record(item)
                    noted = made if isinstance(made, NotedRecord) else NotedRecord(made, "", {})
                    writer.write(noted.record)
                    contents.add(item, noted)
                    progress.advance(1)
            receipt = contents.receipt(fingerprint, files.size(part))
        files.write_json(receipt_path, dataclasses.asdict(receipt), indent=None)
        return receipt
    except (OSError, tf.errors.OpError) as error:
        # Not `from error`, as TensorFlow's errors cannot be sent from a worker to its parent.
        reason = storage_fault(error) or first_line(error)
        raise DataError(f"{task.path}: cannot write the shard: {reason}") from None


class _Contents:
    """Sums up a shard while it is written."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        self._sources = hashlib.sha256()
        self._has_sources = False
        self._records = self._labelled = 0
        self._classes: dict[str, list[int]] = {}
        self._losses: dict[str, dict[str, int]] = {}

    def add(self, item: Any, noted: NotedRecord) -> None:
        from deeplab2_kmax.records.class_counts import count_classes  # Late: it imports TensorFlow.

        for path in self._task.source_files(item):
            self._has_sources = True
            self._sources.update(files.read_bytes(path))
        self._records += 1
        if noted.losses:
            self._losses[noted.name] = dict(noted.losses)
        counts = count_classes(noted.record, self._task.label_divisor)
        self._labelled += counts is not None
        for class_id, (segments, pixels) in (counts or {}).items():
            sums = self._classes.setdefault(str(class_id), [0, 0, 0])
            sums[:] = sums[0] + 1, sums[1] + segments, sums[2] + pixels

    def receipt(self, fingerprint: str, size: int) -> Receipt:
        sources = self._sources.hexdigest() if self._has_sources else None
        return Receipt(fingerprint, self._records, self._labelled, size, sources, self._classes, self._losses)
