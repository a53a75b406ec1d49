"""Time and memory of mask-wise post-processing, beside DeepLab2's where a copy of it is given.

    python benchmarks/postprocessing.py [--deeplab2_path=/path/to/deeplab2] [--sizes=641,1281] [--repeats=5]

Both run in turn (A B A B ...) in one process on the same logits: a picture cut into segments, each claimed by a slot of
its own over a noisy background, with as many confident classes. Peak memory is measured in a process of its own for
each. DeepLab2 needs its protos compiled (`protoc`), as its own installation notes say.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import multiprocessing
import pathlib
import statistics
import sys
import threading
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
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
    """Logits as a trained network's: each segment of a picture is claimed by one slot, edges are soft."""
    rng = np.random.default_rng(seed)
    side = (size - 1) // 4 + 1
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


def deeplab2_postprocessor(size: int, path: str):
    import tensorflow as tf
    from google.protobuf import text_format

    sys.path.append(str(pathlib.Path(path).resolve().parent))
    from deeplab2 import config_pb2
    from deeplab2.data import dataset
    from deeplab2.model.post_processor import max_deeplab

    config = text_format.Parse(CONFIG % (size, size), config_pb2.ExperimentOptions())
    return tf.function(max_deeplab.PostProcessor(config, dataset.MAP_NAME_TO_DATASET_INFO["coco_panoptic"]))


def seconds(function, outputs) -> float:
    start = time.perf_counter()
    maps = function(outputs)
    maps["panoptic_pred"].numpy()
    return time.perf_counter() - start


def peak_memory(which: str, size: int, path: str | None) -> float:
    """GB that one post-processing adds to what TensorFlow and the logits take."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (which, size, path))


def _peak_memory(which: str, size: int, path: str | None) -> float:
    import tensorflow as tf

    outputs = {name: tf.constant(values) for name, values in synthetic_outputs(size).items()}
    function = our_postprocessor(size) if which == "ours" else deeplab2_postprocessor(size, path)
    done, before, peak = threading.Event(), resident_memory(), [0.0]

    def watch():
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(2):
        function(outputs)
    done.set()
    watcher.join()
    return peak[0] - before


def resident_memory() -> float:
    """GB of main memory this process holds."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def compare(size: int, repeats: int, path: str | None) -> None:
    import tensorflow as tf

    outputs = {name: tf.constant(values) for name, values in synthetic_outputs(size).items()}
    functions = {"ours": our_postprocessor(size)}
    if path:
        functions["deeplab2"] = deeplab2_postprocessor(size, path)
    maps = {name: function(outputs) for name, function in functions.items()}
    segments = len(np.unique(maps["ours"]["panoptic_pred"]))
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(seconds(function, outputs))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name in functions:
        memory = peak_memory(name, size, path)
        print(
            f"{size:>6} {name:>9} {1000 * medians[name]:>9.0f} ms {memory:>8.2f} GB   {segments} segments", flush=True
        )
    if path:
        same = np.mean(maps["ours"]["panoptic_pred"] == maps["deeplab2"]["panoptic_pred"])
        paired = statistics.median(b / a for a, b in zip(times["ours"], times["deeplab2"]))
        print(f"{size:>6} {'ratio':>9} {paired:>9.1f} x      {100 * same:.3f} % of panoptic ids equal", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeplab2_path", help="folder of DeepLab2, named deeplab2")
    parser.add_argument("--sizes", default="641,1281", help="heights (and widths) of the maps")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print("  size     which        time  peak memory")
    for size in map(int, arguments.sizes.split(",")):
        compare(size, arguments.repeats, arguments.deeplab2_path)


if __name__ == "__main__":
    main()
