"""Times building, tracing and running networks against DeepLab2, alternating, in one process.

    python benchmarks/network.py --deeplab2_path=PARENT_OF_DEEPLAB2 --config FOLDER/kmax_deeplab/kmax_meta_*.textproto

Without --deeplab2_path only ours are timed. The configs are DeepLab2's; both sides build the model each describes. Ours
runs as it is served: batch norms folded, and nothing computed that masks and classes do not need. DeepLab2 computes all
its outputs, as it does when it is evaluated or exported.

DeepLab2's ConvNeXt has grouped convolutions, which TensorFlow runs on a CPU only when XLA compiles them. Exactly these
layers are compiled here and all else is left to TensorFlow's own kernels; compiling the whole encoder was no faster.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import time

import numpy as np
import tensorflow as tf

from deeplab2_kmax.config import load_config
from deeplab2_kmax.model import build_model
from deeplab2_kmax.model.layers.folding import fold_batch_norms

WHAT = ("build", "first call", "network")


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
    from deeplab2.model import deeplab, kmax_deeplab
    from google.protobuf import text_format

    with open(config_path, encoding="utf-8") as file:
        config = text_format.Parse(file.read(), config_pb2.ExperimentOptions())
    config.model_options.backbone.ClearField("pretrained_weights")
    for options in (config.train_dataset_options, config.eval_dataset_options):
        options.crop_size[:] = [size, size]

    def build():
        descriptor = dataset.MAP_NAME_TO_DATASET_INFO[config.train_dataset_options.dataset]
        on_kmax_skeleton = "kmax_" in config.model_options.backbone.name
        model = (kmax_deeplab.KMaXDeepLab if on_kmax_skeleton else deeplab.DeepLab)(config, descriptor)
        model(tf.keras.Input([size, size, 3]), training=False)
        return model

    return build


def compile_grouped_convolutions(model) -> None:
    """Has XLA compile the convolutions of DeepLab2's `model` that TensorFlow cannot run on a CPU, and nothing else."""
    for layer in model.submodules:
        if isinstance(layer, tf.keras.layers.Conv2D) and layer.groups > 1:
            layer.call = tf.function(layer.call, jit_compile=True, autograph=False)


def network_function(model, is_ours: bool):
    """Images -> what post-processing needs, as a graph."""
    if is_ours:
        fold_batch_norms(model)
    else:
        compile_grouped_convolutions(model)
    names = ("pixel_space_mask_logits", "transformer_class_logits")

    def predict(images):
        if is_ours:
            outputs = model(images, training=False)
            return [outputs[name] for name in names]
        if hasattr(model, "_decoder"):
            # MaX-DeepLab: its call always post-processes.
            return model._decoder(model._encoder(images / 127.5 - 1.0, training=False), training=False)
        return model(images, training=False, post_processing=False)

    return tf.function(predict, autograph=not is_ours)


def seconds(function, *arguments) -> tuple[float, object]:
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeplab2_path", help="folder that holds the package deeplab2")
    parser.add_argument("--config", required=True, nargs="+", help="experiment configs that DeepLab2 can read")
    parser.add_argument("--sizes", type=int, nargs="+", default=[641])
    parser.add_argument("--rounds", type=int, default=5, help="forward passes of each side")
    parser.add_argument("--builds", type=int, default=2, help="times each side is built")
    arguments = parser.parse_args()
    sides = {"ours": ours}
    if arguments.deeplab2_path:
        sys.path.insert(0, arguments.deeplab2_path)
        sides["deeplab2"] = deeplab2
    print(f"batch 1, median seconds of {arguments.rounds} passes and {arguments.builds} builds, taking turns")
    print(f"{'config':44}{'size':>6} {'':12}{'ours':>8}{'DeepLab2':>10}{'ratio':>8}")
    for config in arguments.config:
        for size in arguments.sizes:
            times = compare(sides, config, size, arguments.rounds, arguments.builds)
            report(pathlib.Path(config).stem, size, times)
            tf.keras.backend.clear_session()


def compare(sides: dict, config: str, size: int, rounds: int, builds: int) -> dict[tuple[str, str], list[float]]:
    """{(what, side): seconds of each time}."""
    times: dict[tuple[str, str], list[float]] = {}
    builders = {side: make(config, size) for side, make in sides.items()}
    models = {}
    for _ in range(builds):
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
    return times


def report(config: str, size: int, times: dict) -> None:
    for what in WHAT:
        mine = statistics.median(times[what, "ours"])
        line = f"{config:44}{size:6} {what:12}{mine:8.2f}"
        if (what, "deeplab2") in times:
            theirs = statistics.median(times[what, "deeplab2"])
            line += f"{theirs:10.2f}{theirs / mine:8.1f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
