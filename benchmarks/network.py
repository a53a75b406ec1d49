"""Times building, tracing and running kMaX-R50 against DeepLab2, alternating, in one process.

    python benchmarks/network.py --deeplab2_path=PARENT_OF_DEEPLAB2 --config=PATH/kmax_meta_r50_os32.textproto

Without --deeplab2_path only ours is timed. The config is one of DeepLab2's; both sides build the model it describes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
import tensorflow as tf

from deeplab2_kmax.config import load_config
from deeplab2_kmax.model import build_model


def ours(config_path: str, size: int):
    """A function that builds our model, untrained, for square images of `size`."""
    sides = [
        f"{part}_dataset_options.{name}"
        for part in ("train", "eval")
        for name in (f"crop_size={size},{size}", "min_resize_value=", "max_resize_value=")
    ]
    config = load_config(config_path, sides)
    return lambda: build_model(config)


def deeplab2(config_path: str, size: int):
    """The same for DeepLab2's."""
    from deeplab2 import config_pb2
    from deeplab2.data import dataset
    from deeplab2.model import kmax_deeplab
    from google.protobuf import text_format

    with open(config_path, encoding="utf-8") as file:
        config = text_format.Parse(file.read(), config_pb2.ExperimentOptions())
    for options in (config.train_dataset_options, config.eval_dataset_options):
        options.crop_size[:] = [size, size]

    def build():
        descriptor = dataset.MAP_NAME_TO_DATASET_INFO[config.train_dataset_options.dataset]
        model = kmax_deeplab.KMaXDeepLab(config, descriptor)
        model(tf.keras.Input([size, size, 3]), training=False)
        return model

    return build


def network_function(model, is_ours: bool):
    """Images -> what post-processing needs, as a graph."""
    names = ("pixel_space_mask_logits", "transformer_class_logits")

    def predict(images):
        outputs = model(images, training=False) if is_ours else model(images, training=False, post_processing=False)
        return [outputs[name] for name in names] if is_ours else outputs

    return tf.function(predict, autograph=not is_ours)


def seconds(function, *arguments) -> tuple[float, object]:
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeplab2_path")
    parser.add_argument("--config", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[641])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    sides = {"ours": ours}
    if arguments.deeplab2_path:
        sys.path.insert(0, arguments.deeplab2_path)
        sides["deeplab2"] = deeplab2
    for size in arguments.sizes:
        compare(sides, arguments.config, size, arguments.rounds)


def compare(sides: dict, config: str, size: int, rounds: int) -> None:
    times: dict[tuple[str, str], list[float]] = {}
    builders = {side: make(config, size) for side, make in sides.items()}
    models = {}
    for _ in range(2):
        for side, build in builders.items():
            elapsed, models[side] = seconds(build)
            times.setdefault(("build", side), []).append(elapsed)
    functions = {side: network_function(model, side == "ours") for side, model in models.items()}
    images = tf.constant(np.random.RandomState(0).uniform(0, 255, [1, size, size, 3]).astype(np.float32))
    for side, function in functions.items():
        times[("first call", side)] = [seconds(function, images)[0]]
    for _ in range(rounds):
        for side, function in functions.items():
            times.setdefault(("network", side), []).append(seconds(function, images)[0])
    report(size, times)


def report(size: int, times: dict) -> None:
    print(f"\n{size} x {size}, batch 1, median seconds")
    print(f"{'':12}{'ours':>10}{'DeepLab2':>10}{'ratio':>8}")
    for what in ("build", "first call", "network"):
        mine = statistics.median(times[what, "ours"])
        theirs = statistics.median(times[what, "deeplab2"]) if (what, "deeplab2") in times else None
        line = f"{what:12}{mine:10.2f}"
        print(line if theirs is None else f"{line}{theirs:10.2f}{theirs / mine:8.1f}")


if __name__ == "__main__":
    main()
