"""Times building, tracing and running networks, beside DeepLab2's.

    python benchmarks/network.py [--deeplab2_path=DEEPLAB2] --config FOLDER/kmax_deeplab/kmax_meta_*.textproto

The configs are DeepLab2's; both sides build the model that each describes and take turns in one process. Ours runs as
it is served: batch norms are folded, and nothing is computed that masks and classes do not need. DeepLab2 computes all
its outputs, as it does when it is evaluated or exported. Without --deeplab2_path a config may also be one of ours.

DeepLab2's ConvNeXt has grouped convolutions, which TensorFlow runs on a CPU only when XLA compiles them. Exactly these
layers are compiled here, and everything else is left to TensorFlow's own kernels; compiling the whole encoder was no
faster.
"""

from __future__ import annotations

import functools
import os
import pathlib
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from beside_deeplab2 import (
    add_deeplab2_path,
    argument_parser,
    import_deeplab2,
    read_deeplab2_config,
    take_turns,
    timed,
)

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
    """A function that builds DeepLab2's model, untrained, for square images of `size`."""
    from deeplab2.data import dataset
    from deeplab2.model import deeplab, kmax_deeplab

    config = read_deeplab2_config(config_path)
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
    """Has XLA compile the convolutions of DeepLab2's `model` that TensorFlow cannot run on a CPU, and no others."""
    for layer in model.submodules:
        if isinstance(layer, tf.keras.layers.Conv2D) and layer.groups > 1:
            layer.call = tf.function(layer.call, jit_compile=True, autograph=False)


def network_function(model, is_ours: bool):
    """A tf.function from images to what post-processing needs."""
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
            # DeepLab2's MaX-DeepLab post-processes whenever it is called, so its two parts are called here.
            return model._decoder(model._encoder(images / 127.5 - 1.0, training=False), training=False)
        return model(images, training=False, post_processing=False)

    return tf.function(predict, autograph=not is_ours)


def main() -> None:
    parser = argument_parser(__doc__)
    add_deeplab2_path(parser)
    parser.add_argument("--config", required=True, nargs="+", help="experiment configs that DeepLab2 can read")
    parser.add_argument("--sizes", type=int, nargs="+", default=[641], help="heights (and widths) of the image")
    parser.add_argument("--rounds", type=int, default=5, help="forward passes of each side")
    parser.add_argument("--builds", type=int, default=2, help="times each side is built")
    arguments = parser.parse_args()
    sides = {"ours": ours}
    if arguments.deeplab2_path:
        import_deeplab2(arguments.deeplab2_path)
        sides["deeplab2"] = deeplab2
    print(f"batch 1, median seconds of {arguments.rounds} passes and {arguments.builds} builds, taking turns")
    print(f"{'config':44}{'size':>6} {'':12}{'ours':>8}{'DeepLab2':>10}{'ratio':>8}")
    for config in arguments.config:
        for size in arguments.sizes:
            times = compare(sides, config, size, arguments.rounds, arguments.builds)
            report(pathlib.Path(config).stem, size, times)
            tf.keras.backend.clear_session()


def compare(sides: dict, config: str, size: int, rounds: int, builds: int) -> dict[tuple[str, str], list[float]]:
    """Times one config at one size; returns {(one of `WHAT`, side): seconds of each time}."""
    times: dict[tuple[str, str], list[float]] = {}
    builders = {side: make(config, size) for side, make in sides.items()}
    models = {}
    for _ in range(builds):
        for side, build in builders.items():
            seconds, models[side] = timed(build)
            times.setdefault(("build", side), []).append(seconds)
    functions = {side: network_function(model, side == "ours") for side, model in models.items()}
    images = tf.constant(np.random.RandomState(0).uniform(0, 255, [1, size, size, 3]).astype(np.float32))
    for side, function in functions.items():
        times["first call", side] = [timed(function, images)[0]]
    passes = take_turns({side: functools.partial(function, images) for side, function in functions.items()}, rounds)
    times.update({("network", side): seconds for side, seconds in passes.items()})
    return times


def report(config: str, size: int, times: dict[tuple[str, str], list[float]]) -> None:
    """Prints the medians of one config at one size."""
    for what in WHAT:
        mine = statistics.median(times[what, "ours"])
        line = f"{config:44}{size:6} {what:12}{mine:8.2f}"
        if (what, "deeplab2") in times:
            theirs = statistics.median(times[what, "deeplab2"])
            line += f"{theirs:10.2f}{theirs / mine:8.1f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
