"""Names the record that stopped a run.

TensorFlow's errors do not say which record they come from, and keeping track of it would slow the pipeline down. So
when an error arises, the shards are read once more, in order and only to check them, up to the first record that cannot
be used.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.input_pipeline.bad_records import check_record, stopped_by
from deeplab2_kmax.input_pipeline.checks import message_of, reason
from deeplab2_kmax.input_pipeline.record_order import whole_shards
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from deeplab2_kmax.records import schema
from deeplab2_kmax.records.shards import find_shards

if TYPE_CHECKING:
    from deeplab2_kmax.protos import dataset_pb2

# TensorFlow raises UnicodeDecodeError if its message quotes a broken record.
_DATA_FAULTS = (
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    UnicodeDecodeError,
    # What an error raised in `bad_records` comes out as.
    tf.errors.UnknownError,
)


class data_errors(contextlib.AbstractContextManager[None]):
    """Names the record at fault if the loop over batches inside of the `with` fails because of the data.

    A class, as `contextlib.contextmanager` lets an error refer to a frame that refers to the error (in Python 3.12):
    what the caller had, data set and threads, would stay until Python looks for such circles.

    Args:
        options: those that the data set was built from, by `build_dataset(options, is_training)`. The loop may be in
            Python or inside a tf.function.
        is_training: see `options`.

    Raises:
        DataError: in place of a TensorFlow error that comes from the data; names shard, record index (from 0), file
            name and reason. Errors that come from elsewhere, or whose record is not found, pass unchanged.
    """

    def __init__(self, options: dataset_pb2.DatasetOptions, is_training: bool) -> None:
        self._options = options
        self._is_training = is_training

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, _DATA_FAULTS) or not _is_of_data(error):
            return
        found = stopped_by(message_of(error)) or _disappeared(error)
        try:
            if found is None:
                logging.error("a record cannot be used (%s); reading the shards again to find it", reason(error))
                found = diagnose(PipelineSettings.from_options(self._options, self._is_training))
            if found is not None:
                raise found from error
        finally:
            # The error refers to this frame; see above.
            found = None


def _is_of_data(error: Exception) -> bool:
    """Whether the error came while a batch was fetched, by the op that does so; else the network failed."""
    return "IteratorGetNext" in message_of(error)


def _disappeared(error: Exception) -> DataError | None:
    """What to say where a file is gone; None for other errors."""
    if not isinstance(error, tf.errors.NotFoundError):
        return None
    return DataError(
        f"a data file disappeared while it was being read: {reason(error)}. Once it is back, the same command goes on"
    )


def diagnose(settings: PipelineSettings) -> DataError | None:
    """Decodes and checks all records in order; the error about the first one that fails, None if all are sound."""
    for shard in find_shards(settings.file_patterns, settings.descriptor.name):
        found = _first_fault(shard, settings)
        if found is not None:
            return found
    return None


def _first_fault(shard: str, settings: PipelineSettings) -> DataError | None:
    """`diagnose` for one file."""

    @tf.autograph.experimental.do_not_convert
    def check(serialized: tf.Tensor) -> tf.Tensor:
        return check_record(serialized, settings).image

    records = whole_shards([shard])(tf.constant(shard), tf.constant(0, tf.int64))
    checked = records.map(check, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    index = 0
    try:
        for _ in checked:
            index += 1
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        name = _file_name(shard, index)
        return DataError(f"{shard}, record {index}{name}: {reason(error)}")
    return None


def _file_name(shard: str, index: int) -> str:
    """The file name of a record as " (name)"; empty if not even that can be read."""
    try:
        serialized = next(iter(tf.data.TFRecordDataset(shard).skip(index))).numpy()
        feature = tf.train.Example.FromString(serialized).features.feature[schema.IMAGE_FILENAME]
        return f" ({feature.bytes_list.value[0].decode(errors='replace')})"
    # StopIteration: the file ends before the record.
    except (tf.errors.OpError, DecodeError, IndexError, StopIteration):
        return ""
