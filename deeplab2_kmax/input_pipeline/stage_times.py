"""Where the time of the training input goes: one stage after the other, in CPU time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import tensorflow as tf

from deeplab2_kmax.input_pipeline import pipeline, samples
from deeplab2_kmax.input_pipeline.decoding import decode_record
from deeplab2_kmax.input_pipeline.record_order import share_of
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from deeplab2_kmax.records.shards import find_shards

if TYPE_CHECKING:
    from deeplab2_kmax.protos import dataset_pb2

_WARM_UP = 4


def stage_times(options: dataset_pb2.DatasetOptions, images: int) -> dict[str, float]:
    """CPU seconds an image that training takes for each stage, over all threads of the process.

    The pipeline is run up to each stage in turn; a stage's time is what it adds. Nothing else should run in the
    process.

    Args:
        options: of the training data.
        images: how many are prepared for each stage.

    Returns:
        Seconds by stage: "read" (and shuffle), "decode", "augment", "targets", "batch".
    """
    settings = PipelineSettings.from_options(options, is_training=True)
    times, before = {}, 0.0
    for name, dataset in _up_to_each_stage(settings).items():
        size = settings.batch_size if name == "batch" else 1
        total = _cpu_seconds(dataset, max(images // size, 1)) / size
        times[name] = max(total - before, 0.0)
        before = total
    return times


def _up_to_each_stage(settings: PipelineSettings) -> dict[str, tf.data.Dataset]:
    shards = find_shards(settings.file_patterns, settings.descriptor.name)
    records = pipeline.training_records(share_of(shards, None), settings)

    def decoded(numbered):
        return tuple(decode_record(record, has_labels=True) for _, record in numbered)

    def seed(numbered):
        return tf.stack([tf.constant(0, tf.int64), numbered[0][0]])

    def then(function):
        function = tf.autograph.experimental.do_not_convert(function)
        return records.map(function, num_parallel_calls=tf.data.AUTOTUNE)

    sampled = pipeline.training_samples(records, settings)
    return {
        "read": records,
        "decode": then(lambda *each: decoded(each)),
        "augment": then(lambda *each: samples.augmented(*decoded(each), seed=seed(each), settings=settings)),
        "targets": sampled,
        "batch": sampled.batch(settings.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE),
    }


def _cpu_seconds(dataset: tf.data.Dataset, elements: int) -> float:
    """For each element, of a new iterator after some elements of warming up."""
    iterator = iter(dataset)
    for _ in range(_WARM_UP):
        next(iterator)
    start = time.process_time()
    for _ in range(elements):
        next(iterator)
    return (time.process_time() - start) / elements
