"""Times the panoptic quality of pairs of 480 x 640 in COCO's format, beside panopticapi, hotcoco and DeepLab2.

    python benchmarks/scoring.py [--panopticapi_path=FOLDER] [--deeplab2_path=DEEPLAB2] [--images=100] [--repeats=5]

All take turns. Each begins with files, JSON and PNGs, and ends with the figures of all classes; DeepLab2, whose class
takes label maps, gets maps that are decoded already. FOLDER holds cocodataset/panopticapi, which uses all cores, as the
others do. `--only=PATH` writes the files there, or scores those that are there, once: time and memory of large sets.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import pathlib
import resource
import statistics
import sys
import tempfile
import time

import numpy as np
from beside_deeplab2 import add_deeplab2_path, argument_parser, import_deeplab2, take_turns
from panoptic_quality import LABEL_DIVISOR, deeplab2_update, synthetic_pair
from PIL import Image
from synthetic_coco import CLASSES, THINGS

from deeplab2_kmax.datasets.segment_colors import ids_to_colors
from deeplab2_kmax.evaluation import image_pairs
from deeplab2_kmax.evaluation.coco_format import read_coco_prediction, read_coco_truth
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.evaluation.scoring.score import score_files

# Drawing a pair takes longer than scoring it, so large sets repeat them.
DIFFERENT = 100


def write_set(folder: pathlib.Path, images: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Writes truth and prediction in COCO's format, and returns the different pairs of maps among them."""
    annotations: dict[str, list] = {"truth": [], "prediction": []}
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for side in annotations:
        (folder / side).mkdir(parents=True, exist_ok=True)
    for number in range(images):
        name = f"{number:06d}.png"
        if number < DIFFERENT:
            pairs.append(synthetic_pair(number))
        for side, ids in zip(annotations, pairs[number % DIFFERENT]):
            if number < DIFFERENT:
                Image.fromarray(ids_to_colors(ids)).save(folder / side / name)
            else:
                content = (folder / side / f"{number % DIFFERENT:06d}.png").read_bytes()
                (folder / side / name).write_bytes(content)
            values, areas = np.unique(ids, return_counts=True)
            segments = [
                {"id": i, "category_id": i // LABEL_DIVISOR, "area": area, "iscrowd": 0}
                for i, area in zip(values.tolist(), areas.tolist())
                if i
            ]
            annotations[side].append({"image_id": number, "file_name": name, "segments_info": segments})
    categories = [{"id": i, "name": f"class {i}", "isthing": int(i <= THINGS)} for i in range(1, CLASSES + 1)]
    for side, entries in annotations.items():
        (folder / f"{side}.json").write_text(json.dumps({"annotations": entries, "categories": categories}))
    return pairs


def without_hotcoco(truth: str, prediction: str) -> None:
    """Our own counting, which is what runs where hotcoco is not installed."""
    read = read_coco_truth(truth)
    figures = ImageFigures("", read.categories.classes)
    predictions = read_coco_prediction(prediction, None, read).images
    image_pairs.score_pairs(figures, list(map(image_pairs.Pair, read.images, predictions)), None)
    figures.result().as_dict()


def hotcoco_score(truth: str, prediction: str) -> None:
    from hotcoco import panoptic

    evaluation = panoptic.PanopticEval(truth, prediction)
    evaluation.evaluate()
    evaluation.results()


def panopticapi_score(truth: str, prediction: str) -> None:
    from panopticapi import evaluation

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.pq_compute(truth, prediction)


def score_once(folder: str, images: int) -> None:
    """Writes a set, scores it, and prints time and the largest memory of this process and of those it has started."""
    if not os.path.exists(f"{folder}/prediction.json"):
        write_set(pathlib.Path(folder), images)
        print(f"{images} images written to {folder}; the same command once more scores them")
        return
    start = time.perf_counter()
    figures = score_files(f"{folder}/truth.json", f"{folder}/prediction.json")
    seconds = time.perf_counter() - start
    memory = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{len(figures)} images, PQ {figures.result().all.pq:.6f}: {seconds:.2f} s, {memory[0]:.0f} MB", end="")
    print(f", {memory[1]:.0f} MB in the largest of the processes it has started" if memory[1] > 1 else "")


def main() -> None:
    parser = argument_parser(__doc__)
    add_deeplab2_path(parser)
    parser.add_argument("--panopticapi_path", metavar="FOLDER", help="folder of cocodataset/panopticapi")
    parser.add_argument("--images", type=int, default=100, help="pairs")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--only", metavar="PATH", help="score one set in this folder, which is written where missing")
    arguments = parser.parse_args()
    if arguments.only:
        score_once(arguments.only, arguments.images)
        return

    with tempfile.TemporaryDirectory() as folder:
        pairs = write_set(pathlib.Path(folder), arguments.images)
        paths = f"{folder}/truth.json", f"{folder}/prediction.json"
        functions = {
            "ours": lambda: score_files(*paths).result().as_dict(),
            "ours, without hotcoco": functools.partial(without_hotcoco, *paths),
        }
        with contextlib.suppress(ImportError):
            import hotcoco  # noqa: F401

            functions["hotcoco"] = functools.partial(hotcoco_score, *paths)
        if arguments.panopticapi_path:
            sys.path.append(arguments.panopticapi_path)
            functions["panopticapi"] = functools.partial(panopticapi_score, *paths)
        times = take_turns(functions, arguments.repeats)
        if arguments.deeplab2_path:
            # After the others: once TensorFlow is imported, no process can be forked, and starting one takes long.
            import_deeplab2(arguments.deeplab2_path)
            update = deeplab2_update()
            count = range(arguments.images)
            times |= take_turns({"deeplab2": lambda: [update(*pairs[n % DIFFERENT]) for n in count]}, 1)
        fastest = min(statistics.median(seconds) for seconds in times.values())
        for name, seconds in times.items():
            median = statistics.median(seconds)
            print(
                f"{name:>22} {1000 * median / arguments.images:>8.2f} ms a pair {median / fastest:>7.2f} x the fastest"
            )


if __name__ == "__main__":
    main()
