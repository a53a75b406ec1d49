"""Time of panoptic quality per 480x640 image, beside DeepLab2's where a copy of it is given.

    python benchmarks/panoptic_quality.py [--deeplab2_path=/path/to/deeplab2] [--images=8] [--repeats=3]

Both run in turn (A B A B ...) in one process on the same label maps: segments with ragged edges, the prediction a
shifted and partly relabelled copy of the truth.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import pathlib
import statistics
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
HEIGHT, WIDTH, SEGMENTS = 480, 640, 20


def synthetic_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A true and a predicted panoptic map of COCO, int32 [480,640]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + rng.normal(0, 1.0, (2, HEIGHT, WIDTH))
    centers = rng.random((SEGMENTS, 2)) * (HEIGHT, WIDTH)
    distance = (rows[..., None] - centers[:, 0]) ** 2 + (columns[..., None] - centers[:, 1]) ** 2
    nearest = distance.argmin(-1)
    classes = rng.integers(0, 134, SEGMENTS)
    ids = classes * 256 + np.where((classes > 0) & (classes <= 80), np.arange(1, SEGMENTS + 1), 0)
    guessed = np.where(rng.random(SEGMENTS) < 0.8, ids, rng.permutation(ids))
    return ids[nearest].astype(np.int32), np.roll(guessed[nearest], (7, 11), (0, 1)).astype(np.int32)


def deeplab2_metric(path: str):
    sys.path.append(str(pathlib.Path(path).resolve().parent))
    from deeplab2.evaluation import panoptic_quality

    return panoptic_quality.PanopticQuality(134, 0, 256, 256**3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeplab2_path", help="folder of DeepLab2, named deeplab2")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    from deeplab2_kmax.datasets import load_dataset
    from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality

    updates = {"ours": PanopticQuality(load_dataset("coco_panoptic")).update}
    if arguments.deeplab2_path:
        import tensorflow as tf

        theirs = deeplab2_metric(arguments.deeplab2_path)
        updates["deeplab2"] = lambda truth, prediction: theirs.update_state(tf.constant(truth), tf.constant(prediction))
    pairs = [synthetic_pair(seed) for seed in range(arguments.images)]
    times = {name: [] for name in updates}
    for truth, prediction in pairs * arguments.repeats:
        for name, update in updates.items():
            start = time.perf_counter()
            update(truth, prediction)
            times[name].append(time.perf_counter() - start)
    for name, values in times.items():
        print(f"{name:>9} {1000 * statistics.median(values):>8.2f} ms an image")
    if arguments.deeplab2_path:
        ratio = statistics.median(b / a for a, b in zip(times["ours"], times["deeplab2"]))
        print(f"{'ratio':>9} {ratio:>8.1f} x")


if __name__ == "__main__":
    main()
