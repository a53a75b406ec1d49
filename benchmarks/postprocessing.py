"""Measures time and memory of mask-wise post-processing, beside DeepLab2's.

    python benchmarks/postprocessing.py [--deeplab2_path=DEEPLAB2] [--sizes=641,1281] [--repeats=5]

Both take turns in one process on the same logits: an image cut into segments, each claimed by one mask slot that is
sure of its class; the other slots hold noise and are sure to be void. The peak of memory is measured in a process of
its own for each.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import pathlib
import statistics
import threading

import numpy as np
from beside_deeplab2 import add_deeplab2_path, argument_parser, import_deeplab2, speedup, take_turns

SLOTS, CLASSES, SEGMENTS = 128, 133, 25
CONFIG = """
eval_dataset_options { dataset: "coco_panoptic" crop_size: %d crop_size: %d }
evaluator_options {
  thing_area_limit: 400
  stuff_area_limit: 6400
  transformer_post_processing: "maskwise"
  pixel_confidence_threshold: 0.4
  maskwise_postprocessing {
    transformer_class_confidence_threshold_thing: 0.7
    transformer_class_confidence_threshold_stuff: 0.5
    overlapping_threshold: 0.8
    reorder_class_weight: 1.0
    reorder_mask_weight: 1.0
  }
}
"""


def synthetic_outputs(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Logits like those of a trained network: one slot claims each segment of an image, and edges are soft.

    Returns:
        `pixel_space_mask_logits`, float32 [1, side, side, SLOTS] at stride 4, and `transformer_class_logits`, float32
        [1, SLOTS, CLASSES + 1], void last.
    """
    rng = np.random.default_rng(seed)
    side = (size - 1) // 4 + 1
    # Every pixel belongs to the nearest of random points; its logits fall with the distance from the border.
    rows, columns = np.mgrid[:side, :side] / side
    centers = rng.random((SEGMENTS, 2))
    distance = np.sqrt((rows[..., None] - centers[:, 0]) ** 2 + (columns[..., None] - centers[:, 1]) ** 2)
    nearest = np.minimum.reduce(distance, -1, keepdims=True)
    masks = rng.normal(-4.0, 1.0, (1, side, side, SLOTS)).astype(np.float32)
    slots = rng.permutation(SLOTS)[:SEGMENTS]
    masks[0, :, :, slots] += np.moveaxis(10.0 * np.clip(1 - 40 * (distance - nearest), -0.2, 1), -1, 0)
    classes = rng.normal(0.0, 1.0, (1, SLOTS, CLASSES + 1)).astype(np.float32)
    classes[..., -1] += 6.0
    classes[0, slots, rng.integers(CLASSES, size=SEGMENTS)] += 14.0
    return {"pixel_space_mask_logits": masks, "transformer_class_logits": classes}


def our_postprocessor(size: int):
    from google.protobuf import text_format

    from deeplab2_kmax.postprocessing import build_postprocessor
    from deeplab2_kmax.protos import config_pb2

    return build_postprocessor(text_format.Parse(CONFIG % (size, size), config_pb2.ExperimentOptions()))


def deeplab2_postprocessor(size: int):
    import tensorflow as tf
    from deeplab2 import config_pb2
    from deeplab2.data import dataset
    from deeplab2.model.post_processor import max_deeplab
    from google.protobuf import text_format

    config = text_format.Parse(CONFIG % (size, size), config_pb2.ExperimentOptions())
    return tf.function(max_deeplab.PostProcessor(config, dataset.MAP_NAME_TO_DATASET_INFO["coco_panoptic"]))


SIDES = {"ours": our_postprocessor, "deeplab2": deeplab2_postprocessor}


def peak_memory(side: str, size: int, path: str | None) -> float:
    """GiB that post-processing adds at its peak to what TensorFlow and the logits take."""
    # A new process for each: memory that one has given back would hide what the next takes.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (side, size, path))


def _peak_memory(side: str, size: int, path: str | None) -> float:
    import tensorflow as tf

    if path:
        import_deeplab2(path)
    outputs = {name: tf.constant(values) for name, values in synthetic_outputs(size).items()}
    postprocess = SIDES[side](size)
    done, before, peak = threading.Event(), resident_memory(), 0.0

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(2):
        postprocess(outputs)
    done.set()
    watcher.join()
    return peak - before


def resident_memory() -> float:
    """GiB of main memory that this process holds; reads /proc, so on Linux only."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def compare(size: int, repeats: int, path: str | None) -> None:
    """Prints time and memory of each side at one size and, with both, their ratio and how equal their maps are."""
    import tensorflow as tf

    outputs = {name: tf.constant(values) for name, values in synthetic_outputs(size).items()}
    postprocessors = {side: SIDES[side](size) for side in (SIDES if path else ["ours"])}

    def panoptic_map(side: str) -> np.ndarray:
        # As an array: TensorFlow may still be computing when the call returns.
        return postprocessors[side](outputs)["panoptic_pred"].numpy()

    # The first calls, which trace, are not timed.
    maps = {side: panoptic_map(side) for side in postprocessors}
    segments = len(np.unique(maps["ours"]))
    times = take_turns({side: functools.partial(panoptic_map, side) for side in postprocessors}, repeats)
    for side, seconds in times.items():
        milliseconds, memory = 1000 * statistics.median(seconds), peak_memory(side, size, path)
        print(f"{size:>6} {side:>9} {milliseconds:>9.0f} ms {memory:>8.2f} GiB  {segments} segments", flush=True)
    if path:
        same = np.mean(maps["ours"] == maps["deeplab2"])
        ratio = speedup(times["ours"], times["deeplab2"])
        print(f"{size:>6} {'ratio':>9} {ratio:>9.1f} x      {100 * same:.3f} % of panoptic ids equal", flush=True)


def main() -> None:
    parser = argument_parser(__doc__)
    add_deeplab2_path(parser)
    parser.add_argument("--sizes", default="641,1281", help="heights (and widths) of the maps in pixels")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each side")
    arguments = parser.parse_args()
    if arguments.deeplab2_path:
        import_deeplab2(arguments.deeplab2_path)
    print("  size      side        time  peak memory")
    for size in map(int, arguments.sizes.split(",")):
        compare(size, arguments.repeats, arguments.deeplab2_path)


if __name__ == "__main__":
    main()
