"""Leaving out records that cannot be used, up to a limit, without losing sight of any."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Callable, Sequence

import tensorflow as tf
from absl import logging

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.input_pipeline.checks import reason
from deeplab2_kmax.input_pipeline.decoding import Record, decode_record
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from deeplab2_kmax.input_pipeline.targets import make_targets
from deeplab2_kmax.records.tfrecord import read_record, regions

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

    def __str__(self):
        return f"{self.shard}, record {self.index}: {self.reason}"


class BadRecords:
    """The records of one data set that a run has left out, each once however often it came up.

    Args:
        limit: how many may be.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._found: dict[tuple[str, int], BadRecord] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self):
        return iter(sorted(self._found.values(), key=lambda bad: (bad.shard, bad.index)))

    def __contains__(self, place: tuple[str, int]) -> bool:
        return place in self._found

    def add(self, bad: BadRecord) -> None:
        """Counts and logs a record.

        Raises:
            DataError: it is one more than the limit; lists all.
        """
        with self._lock:
            if (bad.shard, bad.index) in self._found:
                return
            self._found[bad.shard, bad.index] = bad
        logging.warning("left out (%d of at most %d): %s", len(self), self.limit, bad)
        if len(self) > self.limit:
            raise DataError(f"{len(self)} records cannot be used, max_bad_records is {self.limit}:\n{self.listing()}")

    def listing(self) -> str:
        """A line for each record, by shard and index."""
        return "\n".join(f"  {bad}" for bad in self)


def check_record(serialized: tf.Tensor, settings: PipelineSettings) -> Record:
    """Decodes a record and makes all checks that training makes of it, of ids as well.

    Returns:
        The record. Whoever only wants the checks has to ask for its image: TensorFlow drops what nobody asks for.

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
    """The records of a file that may be damaged, as (number of the file, index in it, serialized).

    TensorFlow gives up a file at the first damaged record. The rest is then read by `framing.regions`: in the place of
    each damaged stretch stands one empty record, so that none after it changes its index.
    """
    # A file that cannot be opened would be tried for ever.
    path = tf.ensure_shape(tf.numpy_function(_require_readable, [path], tf.string), [])
    places = tf.data.Dataset.range(tf.int64.max)
    sound = tf.data.Dataset.zip((places, tf.data.TFRecordDataset(path))).ignore_errors()
    none, one = tf.constant(0, tf.int64), tf.constant(1, tf.int64)
    end = tf.data.Dataset.from_tensors((-one, ""))

    def count(read: tf.Tensor, element: tuple):
        index, serialized = element
        at_end = index < 0
        return read + tf.where(at_end, none, one), (at_end, tf.where(at_end, read, index), serialized)

    counted = sound.concatenate(end).scan(none, count)
    signature = (tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string))

    def with_rest(at_end: tf.Tensor, index: tf.Tensor, serialized: tf.Tensor) -> tf.data.Dataset:
        itself = tf.data.Dataset.from_tensors((index, serialized)).take(tf.where(at_end, none, one))
        rest = tf.data.Dataset.from_generator(_rest, args=(path, index), output_signature=signature)
        return itself.concatenate(rest.take(tf.where(at_end, -one, none)))

    return counted.flat_map(with_rest).map(lambda index, serialized: (number, index, serialized))


def _require_readable(path: bytes) -> bytes:
    try:
        with tf.io.gfile.GFile(path.decode(), "rb") as file:
            file.read(1)
    except tf.errors.OpError as error:
        raise RuntimeError(_STOPPED.format(f"cannot read {path.decode()}: {error.message}")) from error
    return path


def _rest(path: bytes, begin: int):
    """(index, serialized) of the records from `begin` on, empty where they are damaged."""
    shard = path.decode()
    for index, region in enumerate(regions(shard)):
        if index >= begin:
            yield index, (region.is_record and read_record(shard, region)) or b""


def sound_records(
    placed: tf.data.Dataset, files: Sequence[str], settings: PipelineSettings, bad_records: BadRecords
) -> tf.data.Dataset:
    """Decoded records, those left out that cannot be used.

    Args:
        placed: (position, (number of the file, index in it, serialized)); see `read_placed`.
        files: the paths by number.
        settings: what is expected of the records.
        bad_records: takes down what is left out.

    Returns:
        Dataset of (position, `Record`).
    """

    @tf.autograph.experimental.do_not_convert
    def checked(serialized: tf.Tensor):
        return True, check_record(serialized, settings)

    blank = _blank(tf.data.Dataset.from_tensors("").map(checked).element_spec)

    @tf.autograph.experimental.do_not_convert
    def attempt(position: tf.Tensor, placed: tuple):
        # A data set of one element for each record: what fails in it gives way to the blank.
        tried = tf.data.Dataset.from_tensors(placed[2]).map(checked).ignore_errors()
        sound, record = tried.concatenate(tf.data.Dataset.from_tensors(blank)).take(1).get_single_element()
        return sound, position, placed[0], placed[1], record

    # Traced when the first bad record is met.
    check = tf.function(lambda serialized: check_record(serialized, settings).image, autograph=False)

    def note(number: int, index: int, in_a_row: int) -> bool:
        _note(files[number], int(index), int(in_a_row), check, bad_records)
        return False

    @tf.autograph.experimental.do_not_convert
    def is_sound(in_a_row: tf.Tensor, attempted: tuple) -> tf.Tensor:
        sound, _, number, index, _ = attempted
        noted = lambda: tf.ensure_shape(tf.numpy_function(note, [number, index, in_a_row], tf.bool), [])  # noqa: E731
        return tf.cond(sound, lambda: True, noted)

    attempts = placed.map(attempt, num_parallel_calls=tf.data.AUTOTUNE)
    return _with_bad_in_a_row(attempts).filter(is_sound).map(lambda _, attempted: (attempted[1], attempted[4]))


def _blank(spec):
    """Zeros for the components of an element."""
    return tf.nest.map_structure(lambda each: tf.zeros([side or 0 for side in each.shape], each.dtype), spec)


def _with_bad_in_a_row(attempts: tf.data.Dataset) -> tf.data.Dataset:
    """(how many records up to this one failed one after the other, attempt)."""

    def count(so_far: tf.Tensor, attempted: tuple):
        now = tf.where(attempted[0], tf.zeros_like(so_far), so_far + 1)
        return now, (now, attempted)

    return attempts.scan(tf.constant(0, tf.int64), count)


def _note(shard: str, index: int, in_a_row: int, check: Callable, bad_records: BadRecords) -> None:
    """Finds out why a record failed and takes it down; RuntimeError stops the pipeline."""
    try:
        # Two epochs may meet with all their bad records; more than that is an epoch without a sound one.
        if in_a_row > 2 * bad_records.limit:
            bad_records.add(BadRecord(shard, index, _explain(shard, index, check)))
            raise DataError(f"none of the records can be used:\n{bad_records.listing()}")
        if (shard, index) not in bad_records:
            bad_records.add(BadRecord(shard, index, _explain(shard, index, check)))
    except DataError as error:
        raise RuntimeError(_STOPPED.format(error)) from error


def _explain(shard: str, index: int, check: Callable[[tf.Tensor], tf.Tensor]) -> str:
    """Why a record cannot be used.

    Raises:
        DataError: it can.
    """
    region = next(region for number, region in enumerate(regions(shard)) if number == index)
    where = f"the {region.size} bytes from byte {region.offset} on are left out"
    if not region.is_record:
        return f"damaged: no sound record begins here; {where}, which held one record or more"
    serialized = read_record(shard, region)
    if serialized is None:
        return f"damaged: the checksum of its data is wrong; {where}"
    try:
        check(tf.constant(serialized))
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        return reason(error)
    raise DataError(f"{shard}, record {index}: failed, but is sound when read by itself; is there memory enough?")


def stopped_by(message: str) -> DataError | None:
    """The error that `sound_records` stopped with, from TensorFlow's message; None: it comes from elsewhere."""
    found = re.search(re.escape(_STOPPED).replace(r"\{\}", "(.*?)"), message, flags=re.DOTALL)
    return DataError(found[1]) if found else None
