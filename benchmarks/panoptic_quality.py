"""Times panoptic quality per image of 480 x 640, beside DeepLab2's.

    python benchmarks/panoptic_quality.py [--deeplab2_path=DEEPLAB2] [--images=8] [--repeats=3]

Both take turns in one process on the same label maps: segments with ragged edges; the prediction is a shifted and
partly relabelled copy of the truth.
"""

from __future__ import annotations

import functools
import statistics

import numpy as np
from beside_deeplab2 import add_deeplab2_path, argument_parser, import_deeplab2, speedup, take_turns
from synthetic_coco import THINGS

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality

HEIGHT, WIDTH, SEGMENTS = 480, 640, 20
NUM_CLASSES, IGNORE_LABEL, LABEL_DIVISOR = 134, 0, 256


def synthetic_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A true and a predicted panoptic map of COCO's classes, each int32 [480, 640] of class * 256 + instance."""
    rng = np.random.default_rng(seed)
    # Every pixel belongs to the nearest of random points; noise in its coordinates makes the edges ragged.
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + rng.normal(0, 1.0, (2, HEIGHT, WIDTH))
    centers = rng.random((SEGMENTS, 2)) * (HEIGHT, WIDTH)
    distance = (rows[..., None] - centers[:, 0]) ** 2 + (columns[..., None] - centers[:, 1]) ** 2
    nearest = distance.argmin(-1)
    classes = rng.integers(0, NUM_CLASSES, SEGMENTS)
    is_thing = (classes > 0) & (classes <= THINGS)
    ids = classes * LABEL_DIVISOR + np.where(is_thing, np.arange(1, SEGMENTS + 1), 0)
    guessed = np.where(rng.random(SEGMENTS) < 0.8, ids, rng.permutation(ids))
    return ids[nearest].astype(np.int32), np.roll(guessed[nearest], (7, 11), (0, 1)).astype(np.int32)


def deeplab2_update():
    """DeepLab2's counterpart of our `PanopticQuality.update`."""
    import tensorflow as tf
    from deeplab2.evaluation import panoptic_quality

    # The last number only has to be larger than any panoptic id.
    metric = panoptic_quality.PanopticQuality(NUM_CLASSES, IGNORE_LABEL, LABEL_DIVISOR, LABEL_DIVISOR**3)
    return lambda truth, prediction: metric.update_state(tf.constant(truth), tf.constant(prediction))


def main() -> None:
    parser = argument_parser(__doc__)
    add_deeplab2_path(parser)
    parser.add_argument("--images", type=int, default=8, help="different images")
    parser.add_argument("--repeats", type=int, default=3, help="how often each image is counted")
    arguments = parser.parse_args()

    updates = {"ours": PanopticQuality(load_dataset("coco_panoptic")).update}
    if arguments.deeplab2_path:
        import_deeplab2(arguments.deeplab2_path)
        updates["deeplab2"] = deeplab2_update()
    times: dict[str, list[float]] = {name: [] for name in updates}
    for truth, prediction in map(synthetic_pair, range(arguments.images)):
        functions = {name: functools.partial(update, truth, prediction) for name, update in updates.items()}
        for name, seconds in take_turns(functions, arguments.repeats).items():
            times[name] += seconds
    for name, seconds in times.items():
        print(f"{name:>9} {1000 * statistics.median(seconds):>8.2f} ms an image")
    if arguments.deeplab2_path:
        print(f"{'ratio':>9} {speedup(times['ours'], times['deeplab2']):>8.1f} x")


if __name__ == "__main__":
    main()
