"""Measures how much CPU time each stage of the training input takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from deeplab2_kmax.input_pipeline import pipeline, samples
from deeplab2_kmax.input_pipeline.decoding import Record, decode_record
from deeplab2_kmax.input_pipeline.record_order import share_of
from deeplab2_kmax.input_pipeline.settings import PipelineSettings
from deeplab2_kmax.records.shards import find_shards

if TYPE_CHECKING:
    from deeplab2_kmax.protos import dataset_pb2

# Elements before the clock starts: the first ones wait for threads to start and buffers to fill. More of them than the
# batches that `cli.input_benchmark` waits for, because at most stages an element is a single image.
_WARM_UP = 4

# Of one sample: (position, serialized record), one or two of them; see `pipeline.training_records`.
Numbered = tuple[tuple[tf.Tensor, tf.Tensor], ...]


def stage_times(options: dataset_pb2.DatasetOptions, images: int) -> dict[str, float]:
    """Measures the stages of the training input.

    The pipeline is run up to each stage in turn, and the time that a stage adds is its own. CPU time is that of all
    threads of the process, so nothing else should run in it.

    Args:
        options: the options of the training data.
        images: how many images to prepare for each stage.

    Returns:
        CPU seconds per image of the stages "read" (and shuffle), "decode", "augment", "targets" and "batch".
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
    """{name of a stage: the pipeline up to and including it}."""
    shards = find_shards(settings.file_patterns, settings.descriptor.name)
    records = pipeline.training_records(share_of(shards, None), settings)

    def decoded(numbered: Numbered) -> tuple[Record, ...]:
        return tuple(decode_record(record, has_labels=True) for _, record in numbered)

    def seed(numbered: Numbered) -> tf.Tensor:
        return tf.stack([tf.constant(0, tf.int64), numbered[0][0]])

    def then(function: Callable[..., Any]) -> tf.data.Dataset:
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
    """CPU seconds that one element takes, measured after some elements to warm up."""
    iterator = iter(dataset)
    for _ in range(_WARM_UP):
        next(iterator)
    start = time.process_time()
    for _ in range(elements):
        next(iterator)
    return (time.process_time() - start) / elements
