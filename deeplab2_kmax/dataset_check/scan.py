"""Reads all records of a split and checks them on all cores."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import os
from collections.abc import Iterator, Sequence

import tensorflow as tf
import tqdm

from deeplab2_kmax.dataset_check.faults import NO_LIMITS, Fault, FaultKind, Limits
from deeplab2_kmax.dataset_check.records import RecordFacts, check_record
from deeplab2_kmax.dataset_check.report import Place, Report, make_report
from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.input_pipeline.checks import reason
from deeplab2_kmax.records.shards import find_shards

# Records that wait for each thread; bounds the memory, whatever the size of the data.
_WAITING = 4


def check_records(
    title: str,
    descriptor: DatasetDescriptor,
    file_patterns: Sequence[str],
    has_labels: bool = True,
    limits: Limits = NO_LIMITS,
) -> Report:
    """Decodes every record, and reports what is there and what is wrong.

    Decoding runs in threads: the decoders of TensorFlow and NumPy's sorting leave Python's lock to others.

    Args:
        title: what the split is called, such as "train".
        descriptor: the classes the labels refer to.
        file_patterns: glob patterns of TFRecord shards.
        has_labels: False for records that need no label.
        limits: what the model and the pipeline allow.

    Raises:
        DataError: no file matches, or all that match are empty.
    """
    shards = find_shards(file_patterns, descriptor.name)
    check = functools.partial(check_record, descriptor=descriptor, has_labels=has_labels, limits=limits)
    return make_report(title, descriptor, shards, _in_order(shards, check), has_labels)


def read_record(place: Place) -> bytes:
    """The serialized record at a place that a scan has read."""
    return next(iter(tf.data.TFRecordDataset(place.shard).skip(place.index))).numpy()


def _in_order(shards: Sequence[str], check) -> Iterator[tuple[Place, RecordFacts]]:
    threads = os.cpu_count() or 1
    pending: collections.deque = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool, tqdm.tqdm(desc="checking", unit="record") as bar:
        for place, record in _serialized(shards):
            facts = record if isinstance(record, RecordFacts) else pool.submit(check, record)
            pending.append((place, facts))
            if len(pending) > threads * _WAITING:
                yield _finished(*pending.popleft())
                bar.update()
        while pending:
            yield _finished(*pending.popleft())
            bar.update()


def _finished(place: Place, facts) -> tuple[Place, RecordFacts]:
    return place, facts if isinstance(facts, RecordFacts) else facts.result()


def _serialized(shards: Sequence[str]) -> Iterator[tuple[Place, bytes | RecordFacts]]:
    """The records of all shards. What is behind a damaged place of a shard cannot be found again."""
    for shard in shards:
        index = 0
        try:
            for record in tf.data.TFRecordDataset(shard):
                yield Place(shard, index), record.numpy()
                index += 1
        except tf.errors.OpError as error:
            text = f"the file is damaged here ({reason(error)}); what follows in it is not read"
            yield Place(shard, index), RecordFacts("", None, [Fault(FaultKind.DAMAGED_SHARD, text)])
