"""Times exports from picture to panoptic map, beside DeepLab2's export of the same weights.

    python benchmarks/inference.py --deeplab2_path=DEEPLAB2 --config FOLDER/kmax_deeplab/kmax_meta_r50_os32.textproto

Both sides export the model of a DeepLab2 config with the same weights, which are random; a chess board is added to the
logits, so that segments are found as after training. DeepLab2's SavedModel is in float32, as it knows nothing else;
ours is in the forms that --forms names. All take turns in one process. Cold starts (from the start of the process to
the first map) and peak memory are measured in a process of its own for each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from beside_deeplab2 import (
    add_deeplab2_path,
    argument_parser,
    import_deeplab2,
    read_deeplab2_config,
    speedup,
    take_turns,
)


class Form(NamedTuple):
    """A form of our export.

    Attributes:
        file_format: of the export.
        network: precision that is built into it.
        run: precision that the runtime is asked for; None: its own.
        folder: of which form the export is used; None: its own.
        quantized: whether the network is in INT8.
    """

    file_format: str
    network: str = "float32"
    run: str | None = None
    folder: str | None = None
    quantized: bool = False


FORMS = {
    "float32": Form("saved_model"),
    "bfloat16": Form("saved_model", network="mixed_bfloat16"),
    "openvino": Form("openvino"),
    "openvino_bfloat16": Form("openvino", run="bfloat16", folder="openvino"),
    "openvino_int8": Form("openvino", quantized=True),
    "onnx": Form("onnx"),
}
DEEPLAB2 = "deeplab2"
# Of panoptic ids, in the data sets of DeepLab2's configs that are measured: COCO.
_DIVISOR = 256
# Pictures that INT8's ranges are found from; speed does not depend on them.
_QUANTIZED_BY = 8


def export_ours(config_path: str, size: int, forms: list[str], folder: pathlib.Path) -> None:
    """Writes a checkpoint with random weights, and our exports of it, into a folder."""
    from deeplab2_kmax.checkpoints import load_checkpoint, save_checkpoint
    from deeplab2_kmax.cli.inference_benchmark.models import sure_of_segments, unlike_zero
    from deeplab2_kmax.config import load_config
    from deeplab2_kmax.model import build_model
    from deeplab2_kmax.serving import export, int8, portable
    from deeplab2_kmax.serving.inference import InferenceModel, inference_config

    prefix = str(folder / "weights") if (folder / "weights.index").exists() else None
    for name in forms:
        form = FORMS[name]
        if (folder / (form.folder or name)).is_dir():
            continue
        config = load_config(config_path, [f"input_size={size},{size}", f"model_options.precision={form.network}"])
        config = inference_config(config)
        model: Any = build_model(config)
        if prefix is None:
            unlike_zero(model)
            prefix = save_checkpoint(model, str(folder / "weights"))
        else:
            load_checkpoint(model, prefix)
        inference = sure_of_segments(config, model)
        pictures = drawn_pictures(folder / "pictures") if form.quantized else None
        with (
            mock.patch.object(InferenceModel, "from_checkpoint", lambda *_, made=inference: made),
            # Random weights magnify rounding, so that logits differ by more than an export allows.
            mock.patch.multiple(portable, _LOGITS_TOLERANCE=1.0, _PIXELS_TOLERANCE=1.0),
            mock.patch.object(int8, "_PIXELS_TOLERANCE", 1.0),
        ):
            export(config, None, folder / (form.folder or name), form.file_format, pictures)


def export_deeplab2(config_path: str, size: int, folder: pathlib.Path) -> None:
    """Writes DeepLab2's export of the checkpoint in a folder, as its own program export_model.py does."""
    import tensorflow as tf
    from deeplab2 import export_model
    from network import compile_grouped_convolutions

    from deeplab2_kmax.cli.inference_benchmark.models import Sure

    config = read_deeplab2_config(config_path)
    options = config.eval_dataset_options
    # DeepLab2 builds axial attention for the size of training.
    options.crop_size[:] = config.train_dataset_options.crop_size[:] = [size, size]
    options.min_resize_value[:] = options.max_resize_value[:] = [size]
    module = export_model.DeepLabModule(config, str(folder / "weights"))
    compile_grouped_convolutions(module._model)
    postprocess = module._model._post_processor
    module._model._post_processor = lambda outputs: postprocess({**outputs, **Sure.added_to(outputs)})
    signatures = module.__call__.get_concrete_function(module.get_input_spec())
    tf.saved_model.save(module, str(folder / DEEPLAB2), signatures=signatures)


def opened(folder: str, side: str) -> Callable[[np.ndarray], np.ndarray]:
    """What takes a picture [H, W, 3] uint8 to its panoptic map, by DeepLab2 or a form of ours, from a folder."""
    form = FORMS.get(side, Form("saved_model"))
    path = str(pathlib.Path(folder) / (form.folder or side))
    if side == DEEPLAB2:
        import tensorflow as tf

        loaded = tf.saved_model.load(path)
        return lambda picture: loaded(tf.constant(picture))["panoptic_pred"].numpy()[0]
    from deeplab2_kmax.serving import Predictor

    predictor = Predictor.from_saved_model(path, precision=form.run)
    return lambda picture: predictor(picture).panoptic_map


def read_picture(path: str) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def cold_start(folder: str, side: str, picture: str) -> tuple[float, float]:
    """Seconds from the start of a process to its first map, and the GiB that it has held at most."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--cold_start", folder, side, picture]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - start
        memory = float(process.stdout.readline())
    if process.returncode:
        sys.exit(f"error: the process that was to run {side} failed")
    return seconds, memory


def run_cold(folder: str, side: str, picture: str) -> None:
    """What a process of its own does: a map, and then a second one, as the peak of memory may come later."""
    segment = opened(folder, side)
    segment(read_picture(picture))
    print("done", flush=True)
    segment(read_picture(picture))
    status = pathlib.Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 2**20, flush=True)


def drawn_pictures(folder: pathlib.Path) -> str:
    """A folder of pictures to find the ranges of values from."""
    from PIL import Image

    from deeplab2_kmax.converters.shapes_data.scenes import generate_shapes

    folder.mkdir(exist_ok=True)
    for number in range(_QUANTIZED_BY):
        Image.fromarray(generate_shapes(1, number, 640)[0]).save(folder / f"{number}.png")
    return str(folder)


def drawn_picture(folder: pathlib.Path) -> str:
    """A picture of the size that most of COCO's have."""
    from PIL import Image

    from deeplab2_kmax.converters.shapes_data.scenes import generate_shapes

    path = folder / "picture.jpg"
    Image.fromarray(np.ascontiguousarray(generate_shapes(0, 0, 640)[0][:480])).save(path, quality=95)
    return str(path)


@contextlib.contextmanager
def kept_folder(keep: str | None, config: str, size: int) -> Iterator[pathlib.Path]:
    """The folder for the exports of a config at a size: a part of `keep`, or one that is deleted in the end."""
    if keep is not None:
        folder = pathlib.Path(keep) / f"{pathlib.Path(config).stem}_{size}"
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield pathlib.Path(temporary)


def compare(arguments: argparse.Namespace, config: str, size: int, folder: pathlib.Path) -> list[dict]:
    """Exports, measures and prints one config at one size; returns the figures."""
    forms = arguments.forms.split(",")
    export_ours(config, size, forms, folder)
    sides = list(forms)
    if arguments.deeplab2_path and not (folder / DEEPLAB2).is_dir():
        command = [sys.executable, __file__, f"--deeplab2_path={arguments.deeplab2_path}", "--config", config]
        subprocess.run([*command, "--export_deeplab2", str(size), str(folder)], check=True)
    if arguments.deeplab2_path:
        sides.insert(0, DEEPLAB2)
    picture = arguments.picture or drawn_picture(folder)
    starts = {side: [cold_start(str(folder), side, picture) for _ in range(arguments.cold_starts)] for side in sides}
    functions = {side: opened(str(folder), side) for side in sides}
    maps = {side: function(read_picture(picture)) for side, function in functions.items()}
    whole = {side: (lambda function=function: function(read_picture(picture))) for side, function in functions.items()}
    times = take_turns(whole, arguments.rounds)
    rows = []
    for side in sides:
        row = {
            "config": pathlib.Path(config).stem,
            "size": size,
            "side": side,
            "seconds": statistics.median(times[side]),
            "speedup": speedup(times[side], times[sides[0]]),
            "segments": len(np.unique(maps[side])),
            # Classes: which of two equally sure slots comes first, and so the number of an instance, is for rounding.
            "equal": float(np.mean(maps[side] // _DIVISOR == maps[sides[0]] // _DIVISOR)),
        }
        if starts[side]:
            row["cold_start"], row["memory"] = (statistics.median(values) for values in zip(*starts[side]))
        rows.append(row)
        cold = f"{row['cold_start']:>8.1f} s {row['memory']:>7.2f} GiB" if starts[side] else ""
        print(
            f"{row['config']:36}{size:>5} {side:>18}{row['seconds']:>8.3f} s{row['speedup']:>7.2f}x{cold}"
            f"  {row['segments']:>3} ids, class of {100 * row['equal']:.2f} % of pixels as {sides[0]}'s",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argument_parser(__doc__)
    add_deeplab2_path(parser)
    parser.add_argument("--config", nargs="+", help="experiment configs that DeepLab2 can read")
    parser.add_argument("--sizes", type=int, nargs="+", default=[641], help="heights (and widths) of the input")
    parser.add_argument("--forms", default="float32,bfloat16", help=f"of ours: {', '.join(FORMS)}")
    parser.add_argument("--picture", help="a picture file (default: one of 640 x 480 pixels is drawn)")
    parser.add_argument("--rounds", type=int, default=7, help="timed calls of each side")
    parser.add_argument("--cold_starts", type=int, default=1, help="processes that are started for each side")
    parser.add_argument("--keep", help="folder that keeps the exports; those that are there are not made again")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--cold_start", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--export_deeplab2", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cold_start:
        run_cold(*arguments.cold_start)
        return
    if arguments.deeplab2_path:
        import_deeplab2(arguments.deeplab2_path)
    if arguments.export_deeplab2:
        size, folder = arguments.export_deeplab2
        export_deeplab2(arguments.config[0], int(size), pathlib.Path(folder))
        return
    rows = []
    for config in arguments.config:
        for size in arguments.sizes:
            with kept_folder(arguments.keep, config, size) as folder:
                rows += compare(arguments, config, size, folder)
            if arguments.json:
                pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
