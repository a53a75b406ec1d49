"""Images a second of the training input, beside DeepLab2's where a copy of it is given, and where the time goes.

    python benchmarks/input_pipeline.py [--deeplab2_path=/path/to/deeplab2] [--coco_root=../shared/coco_sample]
        [--crop=641] [--batches=40] [--rounds=4] [--plain]

Both read the same records, made once from the images of a COCO folder and repeated to `--records`, with the same
options: resize to the crop, scale 0.3 to 1.7, autoaugment and copy-paste as kMaX-DeepLab's COCO recipe, batches of 2.
They run in turn (A B A B ...) in one process, each time with a new iterator whose first batches are not timed. CPU time
counts every thread of the process and hardly depends on what else the machine does. `--plain` leaves autoaugment and
copy-paste out. DeepLab2 needs its protos compiled (`protoc`), as its own installation notes say.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import gc
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
BATCH_SIZE, WARM_UP, SHARDS = 2, 4, 4
OPTIONS = """
dataset: "coco_panoptic"
file_pattern: "%s/train-*"
batch_size: %d
crop_size: %d
crop_size: %d
min_resize_value: %d
max_resize_value: %d
thing_id_mask_annotations: true
augmentations {
  min_scale_factor: 0.3
  max_scale_factor: 1.7
  scale_factor_step_size: 0.1
  %s
}
"""
RECIPE = """
  autoaugment_policy_name: "simple_classification_policy"
  panoptic_copy_paste {
    panoptic_copy_paste_scale: 0.5
    panoptic_copy_paste_thing_option: "all"
    panoptic_copy_paste_stuff_option: "random"
    panoptic_copy_paste_void_option: "none"
  }
"""


def write_records(coco_root: pathlib.Path, folder: pathlib.Path, count: int) -> None:
    """Writes `count` training records to `SHARDS` files, the images of the folder over and over."""
    import tensorflow as tf

    from deeplab2_kmax.converters.coco import convert_coco

    convert_coco(coco_root, folder / "once", num_processes=1)
    shards = sorted(map(str, (folder / "once").glob("train-*")))
    records = list(tf.data.TFRecordDataset(shards).as_numpy_iterator())
    for shard in range(SHARDS):
        with tf.io.TFRecordWriter(str(folder / f"train-{shard:05}-of-{SHARDS:05}.tfrecord")) as writer:
            for index in range(shard, count, SHARDS):
                writer.write(records[index % len(records)])


def our_options(text: str):
    from google.protobuf import text_format

    from deeplab2_kmax.protos import dataset_pb2

    return text_format.Parse(text, dataset_pb2.DatasetOptions())


def deeplab2_batches(text: str, path: str):
    sys.path.append(str(pathlib.Path(path).resolve().parent))
    from deeplab2 import dataset_pb2
    from deeplab2.trainer import runner_utils
    from google.protobuf import text_format

    return runner_utils.create_dataset(text_format.Parse(text, dataset_pb2.DatasetOptions()), is_training=True)


def measure(batches, count: int) -> tuple[float, float]:
    """Seconds and CPU seconds an image over `count` batches of a new iterator."""
    iterator = iter(batches)
    for _ in range(WARM_UP):
        next(iterator)
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(iterator)
    images = count * BATCH_SIZE
    times = (time.perf_counter() - start) / images, (time.process_time() - cpu_start) / images
    # Its threads would go on filling buffers.
    del iterator
    gc.collect()
    return times


def compare(text: str, path: str | None, count: int, rounds: int) -> None:
    from deeplab2_kmax.input_pipeline import build_dataset

    pipelines = {"ours": build_dataset(our_options(text), is_training=True)}
    if path:
        pipelines["deeplab2"] = deeplab2_batches(text, path)
    times = {name: [] for name in pipelines}
    for _ in range(rounds):
        for name, batches in pipelines.items():
            times[name].append(measure(batches, count))
    print("    which    images/s   CPU ms an image")
    for name, measured in times.items():
        seconds, cpu = (statistics.median(values) for values in zip(*measured))
        print(f"{name:>9} {1 / seconds:>11.1f} {1000 * cpu:>17.1f}", flush=True)
    if path:
        pairs = zip(times["ours"], times["deeplab2"])
        wall, cpu = zip(*((b[0] / a[0], b[1] / a[1]) for a, b in pairs))
        print(f"    ratio {statistics.median(wall):>9.1f} x {statistics.median(cpu):>15.1f} x", flush=True)


def show_stages(text: str, images: int) -> None:
    from deeplab2_kmax.input_pipeline.stage_times import stage_times

    stages = stage_times(our_options(text), images)
    total = sum(stages.values())
    print("\n    stage   CPU ms an image")
    for name, seconds in stages.items():
        print(f"{name:>9} {1000 * seconds:>17.1f} {seconds / total:>6.0%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeplab2_path", help="folder of DeepLab2, named deeplab2")
    parser.add_argument("--coco_root", default=str(ROOT.parent / "shared" / "coco_sample"))
    parser.add_argument("--crop", type=int, default=641)
    parser.add_argument("--records", type=int, default=64)
    parser.add_argument("--batches", type=int, default=40, help="timed in each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--plain", action="store_true", help="without autoaugment and copy-paste")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_records(pathlib.Path(arguments.coco_root), pathlib.Path(folder), arguments.records)
        sizes = (BATCH_SIZE, *[arguments.crop] * 4)
        text = OPTIONS % (folder, *sizes, "" if arguments.plain else RECIPE)
        compare(text, arguments.deeplab2_path, arguments.batches, arguments.rounds)
        show_stages(text, BATCH_SIZE * arguments.batches)


if __name__ == "__main__":
    main()
