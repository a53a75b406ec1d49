"""Measures images per second of the training input, beside DeepLab2's, and the CPU time of each of our stages.

    python benchmarks/input_pipeline.py --coco_root=FOLDER [--deeplab2_path=DEEPLAB2] [--crop=641] [--batches=40]
        [--rounds=4] [--plain]

Both read the same records, made from the training images of a COCO folder (a few dozen are enough) and repeated until
there are `--records` of them, with the same options: resize to the crop, random scale 0.3 to 1.7, autoaugment and
copy-paste as in kMaX-DeepLab's recipe for COCO, batches of 2. They take turns in one process, each time with a new
iterator whose first batches are not timed. CPU time is that of all threads of the process, and hardly depends on what
else the machine does.
"""

from __future__ import annotations

import gc
import pathlib
import statistics
import tempfile
import time

from beside_deeplab2 import add_deeplab2_path, argument_parser, import_deeplab2, speedup

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
    """Writes `count` training records to `SHARDS` files, repeating the images of `train2017` as often as needed."""
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


def deeplab2_batches(text: str):
    from deeplab2 import dataset_pb2
    from deeplab2.trainer import runner_utils
    from google.protobuf import text_format

    return runner_utils.create_dataset(text_format.Parse(text, dataset_pb2.DatasetOptions()), is_training=True)


def measure(batches, count: int) -> tuple[float, float]:
    """Reads `count` batches from a new iterator; returns (seconds, CPU seconds) per image."""
    iterator = iter(batches)
    for _ in range(WARM_UP):
        next(iterator)
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(iterator)
    images = count * BATCH_SIZE
    times = (time.perf_counter() - start) / images, (time.process_time() - cpu_start) / images
    # Otherwise its threads would go on filling buffers while the other side is timed.
    del iterator
    gc.collect()
    return times


def compare(text: str, path: str | None, count: int, rounds: int) -> None:
    """Prints speed and CPU time of each side and, with both, how many times better ours are."""
    from deeplab2_kmax.input_pipeline import build_dataset

    pipelines = {"ours": build_dataset(our_options(text), is_training=True)}
    if path:
        import_deeplab2(path)
        pipelines["deeplab2"] = deeplab2_batches(text)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in pipelines}
    for _ in range(rounds):
        for name, batches in pipelines.items():
            times[name].append(measure(batches, count))
    print("     side    images/s   CPU ms an image")
    for name, measured in times.items():
        seconds, cpu = (statistics.median(values) for values in zip(*measured))
        print(f"{name:>9} {1 / seconds:>11.1f} {1000 * cpu:>17.1f}", flush=True)
    if path:
        wall, cpu = (speedup(*both) for both in zip(zip(*times["ours"]), zip(*times["deeplab2"])))
        print(f"    ratio {wall:>9.1f} x {cpu:>15.1f} x", flush=True)


def show_stages(text: str, images: int) -> None:
    """Prints the CPU time per image that each stage of our pipeline adds, and its share of the whole."""
    from deeplab2_kmax.input_pipeline.stage_times import stage_times

    stages = stage_times(our_options(text), images)
    total = sum(stages.values())
    print("\n    stage   CPU ms an image")
    for name, seconds in stages.items():
        print(f"{name:>9} {1000 * seconds:>17.1f} {seconds / total:>6.0%}", flush=True)


def main() -> None:
    parser = argument_parser(__doc__)
    add_deeplab2_path(parser)
    parser.add_argument("--coco_root", required=True, help="folder with train2017/ and COCO's panoptic annotations/")
    parser.add_argument("--crop", type=int, default=641, help="height and width of the crops in pixels")
    parser.add_argument("--records", type=int, default=64, help="records to read from")
    parser.add_argument("--batches", type=int, default=40, help="batches timed in each round")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each side")
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
