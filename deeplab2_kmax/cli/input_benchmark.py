"""What `deeplab2-kmax benchmark input` prints: how fast the training input runs, and which stage limits it."""

from __future__ import annotations

import os
import time

from deeplab2_kmax.input_pipeline import build_dataset, data_errors
from deeplab2_kmax.input_pipeline.record_order import SHARDS_READ_AT_ONCE
from deeplab2_kmax.input_pipeline.stage_times import stage_times
from deeplab2_kmax.protos import dataset_pb2
from deeplab2_kmax.wording import counted

# Batches before the clock starts. The first one waits for the graph and for the shuffle buffer, and the second one may
# still: its images are prepared at the same time. `_SECONDS` makes up for whatever is left.
_WARM_UP = 2
# Long enough that the batches which were prefetched before the clock started carry no weight.
_SECONDS = 5.0
# Stage of `stage_times` -> what makes it faster.
_ADVICE = {
    "read": (
        "put the records on a faster disk, or split them into more shards, of which"
        f" {SHARDS_READ_AT_ONCE} are read at once"
    ),
    "decode": "store the images no larger than training needs them",
    "augment": "more cores, a smaller crop_size, or less augmentation (autoaugment_policy_name, panoptic_copy_paste)",
    "targets": "more cores or a smaller crop_size",
    "batch": "more cores or a smaller crop_size",
}


def input_report(options: dataset_pb2.DatasetOptions, images: int) -> str:
    """Times the training input and describes it.

    Args:
        options: the training data and how they are prepared.
        images: number of images to time each stage with; the whole pipeline is timed for at least five seconds.

    Returns:
        A table of the stages, the images a second of the whole pipeline, and a sentence on what limits it.

    Raises:
        DataError: records are missing or broken.
    """
    with data_errors(options, is_training=True):
        stages = stage_times(options, images)
        rate, cores = _whole_pipeline(options, images)
    total = sum(stages.values()) or 1.0
    lines = ["stage      CPU ms an image   share"]
    lines += [f"{name:<9} {1000 * seconds:>16.1f} {seconds / total:>7.0%}" for name, seconds in stages.items()]
    all_cores = counted(os.cpu_count() or 1, "core")
    lines.append(f"\nwhole pipeline: {rate:.1f} images/s; it kept {cores:.1f} of {all_cores} busy")
    slowest = max(stages, key=lambda name: stages[name])
    lines.append(f"Most time goes to the stage {slowest!r}: to speed it up, {_ADVICE[slowest]}.")
    return "\n".join(lines)


def _whole_pipeline(options: dataset_pb2.DatasetOptions, images: int) -> tuple[float, float]:
    """Images a second, and the number of cores kept busy, of the pipeline as training runs it."""
    iterator = iter(build_dataset(options, is_training=True))
    for _ in range(_WARM_UP):
        next(iterator)
    count, start, cpu_start = 0, time.perf_counter(), time.process_time()
    while count * options.batch_size < images or time.perf_counter() - start < _SECONDS:
        next(iterator)
        count += 1
    seconds = time.perf_counter() - start
    return count * options.batch_size / seconds, (time.process_time() - cpu_start) / seconds
