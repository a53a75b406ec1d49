"""Which worker reads which records, and in what order.

The order of an epoch depends on the seed and the epoch's number alone. So a run that was stopped can go on at any
record without repeating its work: whole epochs are skipped by counting, and only the last one is read up to the record.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.input_pipeline.checks import require
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from deeplab2_kmax.records.shards import filled_shards
from deeplab2_kmax.records.tfrecord import FRAME_BYTES, count_records
from deeplab2_kmax.wording import counted

# So many that slow or remote storage keeps up and the shuffle buffer gets records of several shards; not all of them,
# because each open shard has a read buffer. The order that a seed gives depends on this number: with another one, a run
# that goes on would repeat some records of its epoch and miss others.
SHARDS_READ_AT_ONCE = 16
# An epoch has two orders: that of its records, and that of the records to paste from.
_ORDERS = 2

# (path of a file, its number in the share) -> its records.
ReadShard = Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]


@dataclasses.dataclass(frozen=True)
class Share:
    """The records that one worker reads.

    Attributes:
        files: the shards it opens.
        workers: how many workers divide the records of each of these files among them; 1: it reads whole files.
        worker: its number among these workers, from 0.
    """

    files: tuple[str, ...]
    workers: int = 1
    worker: int = 0

    def count(self) -> int:
        """How many records this share has; reads the headers of all records in its files."""
        counts = [count_records(path) for path in self.files]
        return sum(len(range(self._first(number), count, self.workers)) for number, count in enumerate(counts))

    def of(self, records: tf.data.Dataset, number: tf.Tensor) -> tf.data.Dataset:
        """This worker's part of the records of file `number`, scalar int64."""
        return records if self.workers == 1 else records.shard(self.workers, self._first(number))

    def _first(self, number: int | tf.Tensor) -> int | tf.Tensor:
        # Each file starts with another worker, so that the only records of small files do not all go to the first one.
        return (self.worker - number) % self.workers


def share_of(shards: Sequence[str], input_context: tf.distribute.InputContext | None) -> Share:
    """Shares the files among workers.

    Each gets whole files if there is at least one for each; else all open all files and take turns in each.
    """
    if input_context is None or input_context.num_input_pipelines == 1:
        return Share(tuple(shards))
    # A worker must not get empty files only.
    filled = filled_shards(shards)
    workers, worker = input_context.num_input_pipelines, input_context.input_pipeline_id
    if len(filled) >= workers:
        return Share(tuple(filled[worker::workers]))
    return Share(tuple(filled), workers, worker)


def whole_shards(paths: Sequence[str]) -> ReadShard:
    """Reads the serialized records of files by their number, and fails where a file ends within a record.

    TensorFlow notices that by itself only if the header of the record is there; it takes less for the end of the file.
    """
    sizes = tf.constant([files.size(path) for path in paths], tf.int64)
    none = tf.constant(0, tf.int64)

    def count(used: tf.Tensor, element: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        serialized, is_record = element
        length = tf.cast(tf.strings.length(serialized), tf.int64) + FRAME_BYTES
        used += tf.where(is_record, length, none)
        return used, (serialized, is_record, used)

    @tf.autograph.experimental.do_not_convert
    def read(path: tf.Tensor, number: tf.Tensor) -> tf.data.Dataset:
        def require_whole(_: tf.Tensor, is_record: tf.Tensor, used: tf.Tensor) -> tf.Tensor:
            """Whether this is a record; at the end, a check that none of the file's bytes are left over."""
            rest = sizes[number] - used
            whole = require(
                is_record | (rest == 0), "the file is cut within this record; bytes of it that are left:", rest
            )
            with tf.control_dependencies([whole]):
                return tf.identity(is_record)

        records = tf.data.TFRecordDataset(path).map(lambda serialized: (serialized, True))
        with_end = records.concatenate(tf.data.Dataset.from_tensors(("", False)))
        return with_end.scan(none, count).filter(require_whole).map(lambda serialized, *_: serialized)

    return read


def records_in_order(share: Share, read: ReadShard | None = None) -> tf.data.Dataset:
    """Each record of the share once, in the order of the files; see `random_orders` about `read`."""
    read = read or whole_shards(share.files)
    return _numbered(share).flat_map(lambda number, path: share.of(read(path, number), number))


def random_orders(
    share: Share, settings: PipelineSettings, seed: int, first_record: int = 0, read: ReadShard | None = None
) -> tuple[tf.data.Dataset, ...]:
    """The records of the share in random order, without end; each comes once before any comes again.

    Args:
        share: see `share_of`.
        settings: `shuffle_buffer_size` and `copy_paste` are used.
        seed: decides the order.
        first_record: how many records to skip.
        read: reads a file; None: `whole_shards`.

    Returns:
        One data set; with copy-paste also a second one, with the records to paste from, in another order.

    Raises:
        DataError: this worker gets no record at all.
    """
    read = read or whole_shards(share.files)
    # Counting reads every header, so it is only done where the count is needed.
    epoch, passed = 0, 0
    if first_record or share.workers > 1:
        count = share.count()
        if not count:
            raise DataError(
                f"no record for worker {share.worker}: {counted(share.workers, 'worker')} for"
                f" {counted(len(share.files), 'file')} with too few records, e.g. {share.files[0]}"
            )
        epoch, passed = divmod(first_record, count)

    def order(which: int) -> tf.data.Dataset:
        def records_of_epoch(number: tf.Tensor) -> tf.data.Dataset:
            drawn = _shuffled(share, settings, tf.stack([tf.constant(seed, tf.int64), number * _ORDERS + which]), read)
            return drawn.skip(tf.where(number == epoch, tf.constant(passed, tf.int64), 0))

        return tf.data.Dataset.range(epoch, tf.int64.max).flat_map(records_of_epoch)

    return tuple(order(which) for which in range(_ORDERS if settings.copy_paste else 1))


def _shuffled(share: Share, settings: PipelineSettings, seed: tf.Tensor, read: ReadShard) -> tf.data.Dataset:
    """All records of the share in the order that `seed`, [2] int64, decides."""
    seeds = tf.unstack(tf.random.stateless_uniform([2], seed, maxval=None, minval=None, dtype=tf.int64))
    shards = _numbered(share).shuffle(len(share.files), seed=seeds[0], reshuffle_each_iteration=False)
    records = shards.interleave(
        lambda number, path: share.of(read(path, number), number),
        cycle_length=SHARDS_READ_AT_ONCE,
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    # Shuffled within an epoch, so that the buffer never holds a small data set many times over.
    return records.shuffle(settings.shuffle_buffer_size, seed=seeds[1], reshuffle_each_iteration=False)


def _numbered(share: Share) -> tf.data.Dataset:
    """Data set of (number, path) of the files."""
    return tf.data.Dataset.from_tensor_slices((tf.range(len(share.files), dtype=tf.int64), list(share.files)))
