"""From TFRecord shards to batches: which records, decoded how, in which order, and how they are put together."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.input_pipeline.bad_records import BadRecords, read_placed, sound_records
from deeplab2_kmax.input_pipeline.decoding import Record, decode_record
from deeplab2_kmax.input_pipeline.record_order import Share, random_orders, records_in_order, share_of
from deeplab2_kmax.input_pipeline.samples import evaluation_padding, evaluation_sample, training_sample
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from deeplab2_kmax.records.shards import find_whole_shards
from deeplab2_kmax.wording import counted

if TYPE_CHECKING:
    from deeplab2_kmax.protos import dataset_pb2


def build_dataset(
    options: dataset_pb2.DatasetOptions,
    is_training: bool,
    input_context: tf.distribute.InputContext | None = None,
    *,
    first_step: int = 0,
    bad_records: BadRecords | None = None,
) -> tf.data.Dataset:
    """The batches of a training or evaluation run.

    Training: records in random order without end, augmented, whole batches only; see `samples.training_sample`. With
    `options.seed` every run gives the same batches.
    Evaluation: each record once, in the order of the sorted shards; the last batch holds what is left over. See
    `samples.evaluation_sample`. If a batch holds images of different sizes, the entries that have the image's own size
    are padded below and to the right, labels with void; `size_raw` and `size_resized` tell the true sizes.

    Errors in single records arise while iterating: wrap the loop in `faults.data_errors` to have them named. With
    `options.max_bad_records` such records are left out instead.

    Args:
        options: what to read; `batch_size` counts the images of all replicas together.
        is_training: see above.
        input_context: given by tf.distribute where several workers share the records; each batch is then the part of
            one replica.
        first_step: with `options.resume_in_order`, which needs a seed, training starts with the batches that an
            uninterrupted run sees after this many steps.
        bad_records: where records that are left out are noted; its limit must be that of `options`.

    Returns:
        A prefetched data set of dicts from DeepLab2's names to [B, ...] tensors.

    Raises:
        ConfigError: options that contradict themselves, or a batch that the replicas cannot share evenly.
        DataError: no file matches, the files hold no records, or one has another size than its manifest says.
    """
    settings = PipelineSettings.from_options(options, is_training)
    shards = find_whole_shards(settings.file_patterns, settings.descriptor.name, settings.max_bad_records > 0)
    share = share_of(shards, input_context)
    batch_size = _replica_batch_size(settings, input_context)
    if bad_records is None:
        bad_records = BadRecords(settings.max_bad_records)
    if is_training:
        pipelines = input_context.num_input_pipelines if input_context else 1
        pipeline_id = input_context.input_pipeline_id if input_context else 0
        first_record = first_step * settings.batch_size // pipelines if settings.resume_in_order else 0
        numbered = training_records(share, settings, first_record, bad_records)
        samples = training_samples(numbered, settings, pipeline_id)
        batches = samples.batch(batch_size, drop_remainder=True)
        # TensorFlow cannot see that the data never ends; without this, several workers would ask each other before each
        # step who has data left.
        batches = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    else:
        batches = _evaluation_batches(share, batch_size, settings, bad_records)
    pipeline_options = tf.data.Options()
    # Without a seed, training need not wait for the one slow record that is next in order.
    pipeline_options.deterministic = not is_training or settings.seed is not None
    return batches.prefetch(tf.data.AUTOTUNE).with_options(pipeline_options)


def training_records(
    share: Share, settings: PipelineSettings, first_record: int = 0, bad_records: BadRecords | None = None
) -> tf.data.Dataset:
    """Records in random order without end, each with its position in that order, counted from the start of the run.

    Args:
        share: the files of this worker.
        settings: of the data set.
        first_record: position to start at.
        bad_records: where records that are left out are noted; with None or a limit of 0 none is left out.

    Returns:
        Data set of tuples: ((position, record),), or with copy-paste ((position, record), (position, source)). Records
        are serialized, scalar strings; where bad ones may be left out they are decoded `Record`s, as only decoding
        shows which ones are bad.
    """
    noted = bad_records if bad_records is not None and bad_records.limit > 0 else None
    read = None if noted is None else read_placed

    def numbered(order: tf.data.Dataset) -> tf.data.Dataset:
        # Counted before any is left out, so that the augmentation of a record does not depend on how many bad ones
        # there are before it.
        order = order.enumerate(first_record)
        return order if noted is None else sound_records(order, share.files, settings, noted)

    orders = random_orders(share, settings, _seed(settings), first_record, read)
    return tf.data.Dataset.zip(tuple(numbered(order) for order in orders))


def training_samples(numbered: tf.data.Dataset, settings: PipelineSettings, pipeline_id: int = 0) -> tf.data.Dataset:
    """Decodes and augments what `training_records` gives; see `samples.training_sample`."""
    seed = _seed(settings)

    @tf.autograph.experimental.do_not_convert
    def sample(*numbered: tuple[tf.Tensor, tf.Tensor | Record]) -> dict[str, tf.Tensor]:
        # Each sample has a seed of its own, so that runs repeat in whatever order threads take the samples up.
        record_seed = tf.stack([tf.constant(seed + pipeline_id, tf.int64), numbered[0][0]])
        # One record, or with copy-paste a second one to paste from.
        records = (_decoded(record, settings) for _, record in numbered)
        return training_sample(*records, seed=record_seed, settings=settings)

    return numbered.map(sample, num_parallel_calls=tf.data.AUTOTUNE)


def _seed(settings: PipelineSettings) -> int:
    return random.SystemRandom().randrange(2**31) if settings.seed is None else settings.seed


def _evaluation_batches(
    share: Share, batch_size: int, settings: PipelineSettings, bad_records: BadRecords
) -> tf.data.Dataset:
    if bad_records.limit:
        placed = records_in_order(share, read_placed).enumerate()
        records = sound_records(placed, share.files, settings, bad_records).map(lambda _, record: record)
    else:
        records = records_in_order(share)

    @tf.autograph.experimental.do_not_convert
    def sample(record: tf.Tensor | Record) -> dict[str, tf.Tensor]:
        return evaluation_sample(_decoded(record, settings), settings)

    samples = records.map(sample, num_parallel_calls=tf.data.AUTOTUNE)
    chosen = evaluation_padding(settings)
    padding = {
        name: tf.constant(chosen[name], spec.dtype) if name in chosen else tf.zeros([], spec.dtype)
        for name, spec in samples.element_spec.items()
    }
    return samples.padded_batch(batch_size, padding_values=padding)


def _decoded(record: tf.Tensor | Record, settings: PipelineSettings) -> Record:
    return record if isinstance(record, Record) else decode_record(record, settings.has_labels)


def _replica_batch_size(settings: PipelineSettings, input_context: tf.distribute.InputContext | None) -> int:
    """How many images of a batch one replica gets."""
    if input_context is None:
        return settings.batch_size
    replicas = input_context.num_replicas_in_sync
    if settings.batch_size % replicas:
        field = f"{'train' if settings.is_training else 'eval'}_dataset_options.batch_size"
        multiple = f"a multiple of the {counted(replicas, 'replica')}"
        raise ConfigError(f"{field}: expected {multiple}, got {settings.batch_size}")
    return input_context.get_per_replica_batch_size(settings.batch_size)
