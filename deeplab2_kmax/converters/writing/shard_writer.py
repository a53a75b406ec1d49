"""Writes one shard at a time, in whatever process it runs, and knows a shard that an earlier run finished."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from deeplab2_kmax.errors import DataError

_RECEIPT = ".json"
_PART = ".part"


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to be written.

    Attributes:
        path: where it is written.
        moved_path: where it goes once all shards are finished; a run interrupted while moving left it there.
        items: one per record, each a value that JSON can hold.
        make_record: turns an item into a serialized tf.train.Example.
        source_files: the files an item's record is made from.
        identity: what besides items and files decides about the records, as text.
        label_divisor: of the panoptic labels.
    """

    path: str
    moved_path: str
    items: Sequence[Any]
    make_record: Callable[[Any], bytes]
    source_files: Callable[[Any], Sequence[str]]
    identity: str
    label_divisor: int


@dataclasses.dataclass(frozen=True)
class Receipt:
    """What a finished shard holds; lies beside it as JSON until all shards are finished.

    Attributes:
        fingerprint: of everything its records were made from.
        records: how many there are.
        labelled: how many have a label.
        size: bytes of the shard.
        source_sha256: of the bytes of all source files, in order; None without files.
        classes: {class id as text: [images, segments, pixels]}, void among them.
    """

    fingerprint: str
    records: int
    labelled: int
    size: int
    source_sha256: str | None
    classes: dict[str, list[int]]


@dataclasses.dataclass(frozen=True)
class Progress:
    """What workers and parent tell each other: records written so far, and whether to stop."""

    written: Any
    stop: Any

    def advance(self, records: int) -> None:
        with self.written.get_lock():
            self.written.value += records


_progress: Progress | None = None


def begin_work(progress: Progress, in_other_process: bool) -> None:
    """Prepares a process or thread for `write_shard`."""
    global _progress
    _progress = progress
    if in_other_process:
        # Ctrl-C reaches every process; the parent answers it for all.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would write on, into the folder of the next run, and then wait for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def write_shard(task: ShardTask) -> tuple[Receipt, bool] | None:
    """Writes a shard whole, unless an earlier run did from the same sources and settings.

    Returns:
        Its receipt, and whether the shard was there already; None if asked to stop.

    Raises:
        DataError: what `make_record` raises; a source file that is gone; a disk that is full.
    """
    fingerprint = _fingerprint(task)
    receipt = _finished(task, fingerprint)
    if receipt is not None:
        _progress.advance(len(task.items))
        return receipt, True
    # Apache Beam may try a shard anew while a first worker, thought lost, still writes.
    part = f"{task.path}.{uuid.uuid4().hex}{_PART}"
    try:
        receipt = _write(task, fingerprint, part)
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)
    return None if receipt is None else (receipt, False)


def finished_receipt(task: ShardTask) -> Receipt | None:
    """The receipt of a shard that is finished and made from the same sources and settings.

    Raises:
        DataError: a source file that is gone.
    """
    if not os.path.exists(task.path + _RECEIPT):
        return None  # Spares the look at all source files.
    return _finished(task, _fingerprint(task))


def _fingerprint(task: ShardTask) -> str:
    """Of items, settings, and name, size and time of change of each file: equal for equal records."""
    digest = hashlib.sha256(f"{task.identity}\n{json.dumps(list(task.items), sort_keys=True)}\n".encode())
    for item in task.items:
        for path in task.source_files(item):
            try:
                state = os.stat(path)
            except OSError as error:
                raise DataError(f"{path}: cannot read the file: {error.strerror}") from error
            digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _finished(task: ShardTask, fingerprint: str) -> Receipt | None:
    path = task.path if os.path.exists(task.path) else task.moved_path
    try:
        with open(task.path + _RECEIPT, encoding="utf-8") as file:
            receipt = Receipt(**json.load(file))
        is_whole = receipt.fingerprint == fingerprint and receipt.size == os.path.getsize(path)
    except (OSError, ValueError, TypeError):
        return None
    return receipt if is_whole else None


def _write(task: ShardTask, fingerprint: str, part: str) -> Receipt | None:
    import tensorflow as tf  # Late, so that a mistake in the flags is told at once.

    contents = _Contents(task)
    receipt_path, receipt_part = task.path + _RECEIPT, f"{part}{_RECEIPT}"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.remove(receipt_path)
        with tf.io.TFRecordWriter(part) as writer:
            for item in task.items:
                if _progress.stop.is_set():
                    return None
                record = task.make_record(item)
                writer.write(record)
                contents.add(item, record)
                _progress.advance(1)
        receipt = contents.receipt(fingerprint, os.path.getsize(part))
        _reach_the_disk(part)
        os.replace(part, task.path)
        with open(receipt_part, "w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(receipt), file)
        os.replace(receipt_part, receipt_path)
        return receipt
    except (OSError, tf.errors.OpError) as error:
        # Errors of TensorFlow cannot be sent between processes.
        raise DataError(f"{task.path}: cannot write the shard: {error}") from None


def _reach_the_disk(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Contents:
    """Sums up a shard while it is written."""

    def __init__(self, task: ShardTask):
        self._task = task
        self._sources = hashlib.sha256()
        self._has_sources = False
        self._records = self._labelled = 0
        self._classes: dict[str, list[int]] = {}

    def add(self, item: Any, record: bytes) -> None:
        from deeplab2_kmax.records.class_counts import count_classes  # imports TensorFlow

        for path in self._task.source_files(item):
            self._has_sources = True
            with open(path, "rb") as file:
                self._sources.update(file.read())
        self._records += 1
        counts = count_classes(record, self._task.label_divisor)
        self._labelled += counts is not None
        for class_id, (segments, pixels) in (counts or {}).items():
            sums = self._classes.setdefault(str(class_id), [0, 0, 0])
            sums[:] = sums[0] + 1, sums[1] + segments, sums[2] + pixels

    def receipt(self, fingerprint: str, size: int) -> Receipt:
        sources = self._sources.hexdigest() if self._has_sources else None
        return Receipt(fingerprint, self._records, self._labelled, size, sources, self._classes)
