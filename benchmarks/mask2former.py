"""Times an export beside Mask2Former with a ResNet-50 of Hugging Face transformers: what a user might take instead.

    python benchmarks/mask2former.py FOLDER --forms=float32,bfloat16 --their_python=ENVIRONMENT/bin/python [--size=640]

FOLDER holds our exports, as `inference.py --keep` leaves them. ENVIRONMENT is a virtual environment with torch,
transformers, scipy and Pillow. Mask2Former is built from its config, for COCO's 133 classes, with random weights;
nothing is downloaded. Each side runs in a process of its own, on the same picture and with the same number of threads;
they take turns, and only one computes at a time. All go from the picture file to a panoptic map; with random weights
nearly all of Mask2Former's map is void, which makes its post-processing short.
"""

from __future__ import annotations

import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from beside_deeplab2 import argument_parser, speedup


def theirs(size: int, threads: int) -> Callable[[str], object]:
    """What takes the path of a picture to its panoptic map, by Mask2Former."""
    import torch
    from PIL import Image
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        ResNetConfig,
    )

    torch.set_num_threads(threads)
    backbone = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])
    config = Mask2FormerConfig(backbone_config=backbone, num_labels=133)
    model = Mask2FormerForUniversalSegmentation(config).eval()
    processor = Mask2FormerImageProcessor(size={"height": size, "width": size}, do_resize=True)

    def segment(path: str) -> object:
        with Image.open(path) as picture, torch.inference_mode():
            inputs = processor(picture.convert("RGB"), return_tensors="pt")
            outputs = model(**inputs)
            return processor.post_process_panoptic_segmentation(outputs, target_sizes=[picture.size[::-1]])

    return segment


def ours(folder: str, form: str, threads: int) -> Callable[[str], object]:
    """What takes the path of a picture to its panoptic map, by one of our exports."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    from inference import opened, read_picture

    segment = opened(folder, form)
    return lambda path: segment(read_picture(path))


def serve(segment: Callable[[str], object]) -> None:
    """Segments each picture that is named in a line of standard input, and prints the seconds that it took."""
    for line in sys.stdin:
        start = time.perf_counter()
        segment(line.strip())
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("folder", nargs="?", help="folder that holds exports, each under the name of its form")
    parser.add_argument("--forms", default="float32", help="as in inference.py")
    parser.add_argument("--their_python", help="Python of an environment with transformers and torch")
    parser.add_argument("--picture", help="a picture file (default: one of 640 x 480 pixels is drawn)")
    parser.add_argument("--size", type=int, default=640, help="height and width of Mask2Former's input, of whole 32s")
    parser.add_argument("--rounds", type=int, default=7, help="timed calls of each side")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", choices=["ours", "theirs"], help="for the processes that this program starts")
    arguments = parser.parse_args()
    if arguments.serve == "theirs":
        serve(theirs(arguments.size, arguments.threads))
    elif arguments.serve == "ours":
        serve(ours(arguments.folder, arguments.forms, arguments.threads))
    else:
        compare(arguments)


def compare(arguments) -> None:
    """Starts all sides, lets them take turns, and prints the medians."""
    from inference import drawn_picture

    common = [__file__, f"--size={arguments.size}", f"--threads={arguments.threads}"]
    commands = {"Mask2Former": [arguments.their_python, *common, "--serve=theirs"]}
    for form in arguments.forms.split(","):
        commands[form] = [sys.executable, *common, "--serve=ours", f"--forms={form}", arguments.folder]
    with tempfile.TemporaryDirectory() as folder:
        picture = arguments.picture or drawn_picture(pathlib.Path(folder))
        processes = {
            side: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for side, command in commands.items()
        }
        times: dict[str, list[float]] = {side: [] for side in processes}
        # The first round warms up.
        for _ in range(1 + arguments.rounds):
            for side, process in processes.items():
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(picture + "\n")
                process.stdin.flush()
                times[side].append(float(process.stdout.readline()))
        for process in processes.values():
            process.communicate()
    for side, seconds in times.items():
        ratio = speedup(seconds[1:], times["Mask2Former"][1:])
        print(f"{side:40} {statistics.median(seconds[1:]):.3f} s {ratio:6.2f}x")


if __name__ == "__main__":
    main()
