"""Reads all records of a split, and checks them on all cores."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf
import tqdm

from deeplab2_kmax import files
from deeplab2_kmax.dataset_check.faults import NO_LIMITS, Fault, FaultKind, Limits
from deeplab2_kmax.dataset_check.records import RecordFacts, check_record
from deeplab2_kmax.dataset_check.report import Place, Report, make_report
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.input_pipeline.checks import reason
from deeplab2_kmax.pictures.opening import without_pillows_warning
from deeplab2_kmax.records.manifest import faults_of_manifests, faults_of_sizes
from deeplab2_kmax.records.shards import faults_of_numbers, find_shards
from deeplab2_kmax.records.tfrecord import FRAME_BYTES
from deeplab2_kmax.wording import counted

# How many records may wait for each thread, and how many bytes of records for all of them: bounds the memory, whatever
# the size of the data. A record of 10,000 x 10,000 pixels has half a gigabyte.
_WAITING, _WAITING_BYTES = 4, 2**28


def check_records(
    title: str,
    descriptor: DatasetDescriptor,
    file_patterns: Sequence[str],
    has_labels: bool = True,
    limits: Limits = NO_LIMITS,
) -> Report:
    """Decodes every record of a split, and reports its content and its faults.

    Args:
        title: the name of the split, such as "train".
        descriptor: the classes that the labels refer to.
        file_patterns: glob patterns of TFRecord files.
        has_labels: False if the records need no labels.
        limits: the limits of the model and the input pipeline.

    Raises:
        DataError: no file matches the patterns, or all that match are empty.
    """
    shards = find_shards(file_patterns, descriptor.name)
    check = functools.partial(check_record, descriptor=descriptor, has_labels=has_labels, limits=limits)
    # Here, because warnings cannot be hidden in one thread alone.
    with without_pillows_warning():
        report = make_report(title, descriptor, shards, _in_order(shards, check), has_labels)
    numbered = faults_of_numbers(shards, file_patterns).items()
    about_files = [Fault(FaultKind.MISSING_SHARD, f"{path}: {fault}") for path, fault in numbered]
    for path, fault in faults_of_manifests(shards).items():
        about_files.append(Fault(FaultKind.UNUSABLE_MANIFEST, f"{path}: {fault}"))
    return dataclasses.replace(report, faults=(*about_files, *report.faults))


def read_record(place: Place) -> bytes:
    """The bytes of a record that a scan has read before."""
    serialized: bytes = next(iter(tf.data.TFRecordDataset(place.shard).skip(place.index))).numpy()
    return serialized


def _in_order(shards: Sequence[str], check: Callable[[bytes], RecordFacts]) -> Iterator[tuple[Place, RecordFacts]]:
    """The facts about each record, in the order of the files, with a progress bar meanwhile."""
    threads = os.cpu_count() or 1
    pending: collections.deque[_Pending] = collections.deque()
    waiting = 0
    # Threads are enough, as TensorFlow's decoders and NumPy's sorting release Python's lock.
    with concurrent.futures.ThreadPoolExecutor(threads) as pool, tqdm.tqdm(desc="checking", unit="record") as bar:
        for place, record in _serialized(shards):
            size = 0 if isinstance(record, RecordFacts) else len(record)
            while pending and (len(pending) >= threads * _WAITING or waiting + size > _WAITING_BYTES):
                waiting -= pending[0].size
                yield _finished(pending.popleft())
                bar.update()
            facts = record if isinstance(record, RecordFacts) else pool.submit(check, record)
            pending.append(_Pending(place, facts, size))
            waiting += size
        while pending:
            yield _finished(pending.popleft())
            bar.update()


class _Pending(NamedTuple):
    """A record that is being checked, or the facts about it; `size` is that of the record in bytes."""

    place: Place
    facts: RecordFacts | concurrent.futures.Future[RecordFacts]
    size: int


def _finished(pending: _Pending) -> tuple[Place, RecordFacts]:
    facts = pending.facts
    return pending.place, facts if isinstance(facts, RecordFacts) else facts.result()


def _serialized(shards: Sequence[str]) -> Iterator[tuple[Place, bytes | RecordFacts]]:
    """The records of all files, as bytes. Where a file is damaged, a fault stands for the rest of it.

    The rest is not searched for records, as training without max_bad_records cannot use them either.
    """
    other_sizes = faults_of_sizes(shards)
    for shard in shards:
        index, used = 0, 0
        try:
            for serialized in tf.data.TFRecordDataset(shard).as_numpy_iterator():
                yield Place(shard, index), serialized
                index, used = index + 1, used + len(serialized) + FRAME_BYTES
            fault = _fault_of_end(files.size(shard) - used, index, other_sizes.get(shard))
        except tf.errors.OpError as error:
            fault = f"the file is damaged here ({reason(error)}); the rest of it is not read"
        if fault:
            yield Place(shard, index), RecordFacts("", None, [Fault(FaultKind.DAMAGED_SHARD, fault)])


def _fault_of_end(rest: int, records: int, other_size: str | None) -> str | None:
    """What is wrong with the end of a file that TensorFlow has read without an error.

    Args:
        rest: the bytes after its last record. TensorFlow takes less than a header for the end of the file.
        records: how many records it has.
        other_size: the sentence of `faults_of_sizes` about it, if there is one.
    """
    if rest:
        return f"the file is cut here: {counted(rest, 'byte')} of another record"
    if other_size is not None:
        return f"the file was cut or changed: {other_size} with {counted(records, 'record')}"
    return None
