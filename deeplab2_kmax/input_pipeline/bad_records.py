"""Leaves out records that cannot be used, up to a limit, and notes each of them with its reason.

With `max_bad_records: 0` the pipeline stops at the first bad record, and `faults` names it. With another limit, records
are read in a way that survives damaged files (`read_placed`) and tried one by one (`sound_records`).
"""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf
from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.input_pipeline.checks import reason
from deeplab2_kmax.input_pipeline.decoding import Record, decode_record
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from deeplab2_kmax.input_pipeline.targets import make_targets
from deeplab2_kmax.records.tfrecord import read_record, regions
from deeplab2_kmax.wording import counted

# A message that goes through TensorFlow's errors, which wrap it in text of their own; `stopped_by` finds it again.
_STOPPED = "<<input stopped|{}>>"


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A record that was left out.

    Attributes:
        shard: path of its file.
        index: its place in the file, from 0.
        reason: why, in one line.
    """

    shard: str
    index: int
    reason: str

    def __str__(self) -> str:
        return f"{self.shard}, record {self.index}: {self.reason}"


class BadRecords:
    """The records of one data set that a run has left out; each counts once, however often it is met.

    Args:
        limit: how many may be left out.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._found: dict[tuple[str, int], BadRecord] = {}
        # tf.data calls from several threads.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[BadRecord]:
        return iter(sorted(self._found.values(), key=lambda bad: (bad.shard, bad.index)))

    def __contains__(self, place: tuple[str, int]) -> bool:
        return place in self._found

    def add(self, bad: BadRecord) -> None:
        """Counts and logs a record.

        Raises:
            DataError: it is one more than the limit; lists all that were left out.
        """
        with self._lock:
            if (bad.shard, bad.index) in self._found:
                return
            self._found[bad.shard, bad.index] = bad
        logging.warning("left out (%d of at most %d): %s", len(self), self.limit, bad)
        if len(self) > self.limit:
            raise DataError(
                f"{counted(len(self), 'record')} cannot be used, max_bad_records is {self.limit}:\n{self.listing()}"
            )

    def listing(self) -> str:
        """One line for each record, ordered by shard and index."""
        return "\n".join(f"  {bad}" for bad in self)


def check_record(serialized: tf.Tensor, settings: PipelineSettings) -> Record:
    """Decodes a record and checks it as training does, its ids included.

    Args:
        serialized: scalar string.
        settings: of the data set.

    Returns:
        The record. Callers that need nothing but the checks have to use its image, on which they depend: TensorFlow
        does not run what nothing depends on.

    Raises:
        tf.errors.InvalidArgumentError: while iterating: it cannot be used.
    """
    record = decode_record(serialized, settings.has_labels)
    if record.label is None:
        return record
    targets = make_targets(record.label, settings.descriptor, settings.max_thing_id)
    with tf.control_dependencies(list(targets.values())):
        return record._replace(image=tf.identity(record.image))


def read_placed(path: tf.Tensor, number: tf.Tensor) -> tf.data.Dataset:
    """The records of a file that may be damaged.

    TensorFlow gives up a file at the first damaged record. The rest is then read by `tfrecord.regions`, which replaces
    each damaged stretch by one empty record, so that the records after it keep their index.

    Args:
        path: scalar string.
        number: scalar int64, the number of the file, which is passed on.

    Returns:
        Data set of (number of the file, index in it, serialized).
    """
    # `ignore_errors` would try a file that cannot be opened again and again, for ever.
    path = tf.ensure_shape(tf.numpy_function(_require_readable, [path], tf.string), [])
    places = tf.data.Dataset.range(tf.int64.max)
    sound = tf.data.Dataset.zip((places, tf.data.TFRecordDataset(path))).ignore_errors()
    none, one = tf.constant(0, tf.int64), tf.constant(1, tf.int64)
    # Stands for the place where TensorFlow stopped: at the end of the file, or at a damaged record.
    end = tf.data.Dataset.from_tensors((-one, ""))

    def count(read: tf.Tensor, element: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Gives the end its index: the number of records read before it."""
        index, serialized = element
        at_end = index < 0
        return read + tf.where(at_end, none, one), (at_end, tf.where(at_end, read, index), serialized)

    with_end = sound.concatenate(end).scan(none, count)
    signature = (tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string))

    def with_rest(at_end: tf.Tensor, index: tf.Tensor, serialized: tf.Tensor) -> tf.data.Dataset:
        """The record itself; at the end, all that comes after it instead."""
        # One of the two is kept, by its length: take(0) leaves out all elements, take(-1) takes all.
        itself = tf.data.Dataset.from_tensors((index, serialized)).take(tf.where(at_end, none, one))
        rest = tf.data.Dataset.from_generator(_rest, args=(path, index), output_signature=signature)
        return itself.concatenate(rest.take(tf.where(at_end, -one, none)))

    return with_end.flat_map(with_rest).map(lambda index, serialized: (number, index, serialized))


def _require_readable(path: bytes) -> bytes:
    try:
        with files.open_to_read(path.decode()) as file:
            file.read(1)
    except OSError as error:
        raise RuntimeError(_STOPPED.format(f"cannot read {path.decode()}: {error.strerror}")) from error
    return path


def _rest(path: bytes, begin: int) -> Iterator[tuple[int, bytes]]:
    """(index, serialized) of the records from `begin` on; damaged ones are empty."""
    shard = path.decode()
    for index, region in enumerate(regions(shard)):
        if index >= begin:
            yield index, (region.is_record and read_record(shard, region)) or b""


def sound_records(
    placed: tf.data.Dataset, paths: Sequence[str], settings: PipelineSettings, bad_records: BadRecords
) -> tf.data.Dataset:
    """Decodes records and leaves out those that cannot be used.

    Args:
        placed: data set of (position, (number of the file, index in it, serialized)); see `read_placed`.
        paths: of the files; the number of a file is its place here.
        settings: what is expected of the records.
        bad_records: where records that are left out are noted.

    Returns:
        Data set of (position, `Record`).
    """

    @tf.autograph.experimental.do_not_convert
    def checked(serialized: tf.Tensor) -> tuple[bool, Record]:
        return True, check_record(serialized, settings)

    blank = _blank(tf.data.Dataset.from_tensors("").map(checked).element_spec)

    @tf.autograph.experimental.do_not_convert
    def attempt(position: tf.Tensor, placed: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tuple:
        # Inside of `map`, errors can only be caught by a data set. So each record becomes a data set of one element; if
        # that fails, the blank takes its place.
        tried = tf.data.Dataset.from_tensors(placed[2]).map(checked).ignore_errors()
        sound, record = tried.concatenate(tf.data.Dataset.from_tensors(blank)).take(1).get_single_element()
        return sound, position, placed[0], placed[1], record

    # Traced only when the first bad record is met.
    check = tf.function(lambda serialized: check_record(serialized, settings).image, autograph=False)

    def note(number: int, index: int, in_a_row: int) -> bool:
        _note(paths[number], int(index), int(in_a_row), check, bad_records)
        return False

    @tf.autograph.experimental.do_not_convert
    def is_sound(in_a_row: tf.Tensor, attempted: tuple) -> tf.Tensor:
        """False for a bad record, after noting it."""
        sound, _, number, index, _ = attempted
        noted = lambda: tf.ensure_shape(tf.numpy_function(note, [number, index, in_a_row], tf.bool), [])  # noqa: E731
        return tf.cond(sound, lambda: True, noted)

    attempts = placed.map(attempt, num_parallel_calls=tf.data.AUTOTUNE)
    return _with_bad_in_a_row(attempts).filter(is_sound).map(lambda _, attempted: (attempted[1], attempted[4]))


def _blank(spec: tuple) -> tuple:
    """An element of this spec whose tensors are all zeros; unknown sides are 0."""
    return tf.nest.map_structure(lambda each: tf.zeros([side or 0 for side in each.shape], each.dtype), spec)


def _with_bad_in_a_row(attempts: tf.data.Dataset) -> tf.data.Dataset:
    """Data set of (how many records up to this one failed in a row, attempt)."""

    def count(so_far: tf.Tensor, attempted: tuple) -> tuple[tf.Tensor, tuple]:
        now = tf.where(attempted[0], tf.zeros_like(so_far), so_far + 1)
        return now, (now, attempted)

    return attempts.scan(tf.constant(0, tf.int64), count)


def _note(
    shard: str, index: int, in_a_row: int, check: Callable[[tf.Tensor], tf.Tensor], bad_records: BadRecords
) -> None:
    """Finds out why a record failed and notes it.

    Raises:
        RuntimeError: too many failed; this ends the pipeline.
    """
    try:
        # The bad records at the end of one epoch and at the start of the next may follow each other, up to twice the
        # limit. More than that means that a whole epoch has no sound record, and training would wait for one for ever.
        if in_a_row > 2 * bad_records.limit:
            bad_records.add(BadRecord(shard, index, _explain(shard, index, check)))
            raise DataError(f"none of the records can be used:\n{bad_records.listing()}")
        if (shard, index) not in bad_records:
            bad_records.add(BadRecord(shard, index, _explain(shard, index, check)))
    except DataError as error:
        raise RuntimeError(_STOPPED.format(error)) from error


def _explain(shard: str, index: int, check: Callable[[tf.Tensor], tf.Tensor]) -> str:
    """Why a record cannot be used, in one line.

    Raises:
        DataError: it can be used.
    """
    region = next(region for number, region in enumerate(regions(shard)) if number == index)
    where = f"left out: {counted(region.size, 'byte')} from byte {region.offset} on"
    if not region.is_record:
        return f"damaged: no sound record begins here; {where}, which held one record or more"
    serialized = read_record(shard, region)
    if serialized is None:
        return f"damaged: the checksum of its data is wrong; {where}"
    try:
        check(tf.constant(serialized))
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        return reason(error)
    raise DataError(f"{shard}, record {index}: failed, but is sound when read by itself; is there enough memory?")


def stopped_by(message: str) -> DataError | None:
    """The error that `sound_records` stopped with, read from TensorFlow's message; None if it stopped elsewhere."""
    found = re.search(re.escape(_STOPPED).replace(r"\{\}", "(.*?)"), message, flags=re.DOTALL)
    return DataError(found[1]) if found else None
