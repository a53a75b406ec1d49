"""From TFRecord shards to batches."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.input_pipeline.decoding import decode_record
from deeplab2_kmax.input_pipeline.samples import evaluation_padding, evaluation_sample, training_sample
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from deeplab2_kmax.input_pipeline.shards import filled_shards, find_shards

if TYPE_CHECKING:
    from deeplab2_kmax.protos import dataset_pb2

_SHARDS_READ_AT_ONCE = 16


def build_dataset(
    options: dataset_pb2.DatasetOptions, is_training: bool, input_context: tf.distribute.InputContext | None = None
) -> tf.data.Dataset:
    """The batches of a training or evaluation run.

    Training: records in random order without end, augmented, whole batches only; see `samples.training_sample`. With
    `options.seed` every run gives the same batches.
    Evaluation: each record once, in the order of the sorted shards, the last batch as small as it comes out; see
    `samples.evaluation_sample`. Where images of different sizes meet in a batch, the entries that have the image's own
    size are padded below and to the right, the labels with void; `size_raw` and `size_resized` tell the true sizes.

    Errors in single records arise while iterating: wrap the loop in `faults.data_errors` to have them named.

    Args:
        options: what to read; `batch_size` counts the images of all replicas together.
        is_training: see above.
        input_context: of tf.distribute, where several workers share the records; batches are then those of one
            replica.

    Returns:
        A dataset of dicts of [B, ...] tensors with DeepLab2's names, prefetched.

    Raises:
        ConfigError: options that make no sense, or a batch that the replicas cannot share evenly.
        DataError: no file matches, or there are no records in the files.
    """
    settings = PipelineSettings.from_config(options, is_training)
    shards = find_shards(settings.file_patterns, settings.descriptor.name)
    batch_size = _replica_batch_size(settings, input_context)
    if is_training:
        batches = _training_batches(shards, batch_size, settings, input_context)
    else:
        batches = _evaluation_batches(shards, batch_size, settings, input_context)
    pipeline_options = tf.data.Options()
    pipeline_options.deterministic = not is_training or settings.seed is not None
    return batches.prefetch(tf.data.AUTOTUNE).with_options(pipeline_options)


def _training_batches(shards, batch_size, settings, input_context) -> tf.data.Dataset:
    records = training_records(shards, settings, input_context)
    seed = settings.seed if settings.seed is not None else random.SystemRandom().randrange(2**31)
    pipeline_id = input_context.input_pipeline_id if input_context else 0

    @tf.autograph.experimental.do_not_convert
    def sample(index: tf.Tensor, serialized) -> dict[str, tf.Tensor]:
        # A seed of its own for each sample keeps runs reproducible whatever the threads do.
        record_seed = tf.stack([tf.constant(seed + pipeline_id, tf.int64), index])
        # One record, or two where there is one to paste from.
        records = (decode_record(each, settings.has_labels) for each in tf.nest.flatten(serialized))
        return training_sample(*records, seed=record_seed, settings=settings)

    samples = records.enumerate().map(sample, num_parallel_calls=tf.data.AUTOTUNE)
    return samples.batch(batch_size, drop_remainder=True)


def training_records(
    shards: list[str], settings: PipelineSettings, input_context: tf.distribute.InputContext | None = None
) -> tf.data.Dataset:
    """Serialized records, scalar strings, in random order without end; with copy-paste pairs of them."""
    records = _records_in_random_order(shards, settings.seed, settings, input_context)
    if not settings.copy_paste:
        return records
    # The same records in an order of their own, from which is pasted.
    source_seed = None if settings.seed is None else settings.seed + 1
    return tf.data.Dataset.zip((records, _records_in_random_order(shards, source_seed, settings, input_context)))


def _records_in_random_order(shards, seed, settings, input_context) -> tf.data.Dataset:
    """Serialized records of this worker without end, all of them once before any comes again."""
    files, records_share = _share(shards, input_context)
    files = files.shuffle(len(shards), seed=seed)
    records = files.interleave(
        tf.data.TFRecordDataset, cycle_length=_SHARDS_READ_AT_ONCE, num_parallel_calls=tf.data.AUTOTUNE
    )
    # Shuffled within an epoch, so that the buffer never holds a small data set many times over.
    return records_share(records).shuffle(settings.shuffle_buffer_size, seed=seed).repeat()


def _evaluation_batches(shards, batch_size, settings, input_context) -> tf.data.Dataset:
    files, records_share = _share(shards, input_context)

    @tf.autograph.experimental.do_not_convert
    def sample(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        return evaluation_sample(decode_record(serialized, settings.has_labels), settings)

    samples = records_share(tf.data.TFRecordDataset(files)).map(sample, num_parallel_calls=tf.data.AUTOTUNE)
    chosen = evaluation_padding(settings)
    padding = {
        name: tf.constant(chosen[name], spec.dtype) if name in chosen else tf.zeros([], spec.dtype)
        for name, spec in samples.element_spec.items()
    }
    return samples.padded_batch(batch_size, padding_values=padding)


def _share(shards: list[str], input_context):
    """This worker's files, and a function that picks its records from them where there are fewer files than workers."""
    if input_context is None or input_context.num_input_pipelines == 1:
        return tf.data.Dataset.from_tensor_slices(shards), lambda records: records
    # A worker must not be left with empty files only.
    filled = tf.data.Dataset.from_tensor_slices(filled_shards(shards))
    share = (input_context.num_input_pipelines, input_context.input_pipeline_id)
    if filled.cardinality() >= share[0]:
        return filled.shard(*share), lambda records: records
    return filled, lambda records: records.shard(*share)


def _replica_batch_size(settings: PipelineSettings, input_context) -> int:
    if input_context is None:
        return settings.batch_size
    replicas = input_context.num_replicas_in_sync
    if settings.batch_size % replicas:
        raise ConfigError(
            f"dataset options: batch_size: expected a multiple of the {replicas} replicas, got {settings.batch_size}"
        )
    return input_context.get_per_replica_batch_size(settings.batch_size)
