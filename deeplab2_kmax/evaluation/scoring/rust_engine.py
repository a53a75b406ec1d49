"""Scores pairs in COCO's format by hotcoco, where it is installed and its figures are panopticapi's.

hotcoco (https://pypi.org/project/hotcoco) is the fastest implementation that is public: it decodes PNGs and counts in
Rust. It takes less than panopticapi does, refuses in other words, and says figures of classes, not of images. So only
what it takes as panopticapi does is handed to it, each image with classes of its own, so that its figures are those of
the image; whatever it refuses is scored by `image_pairs`, which knows what to say.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.util
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.evaluation.coco_format import CocoPredictedImage, CocoTrueImage
from deeplab2_kmax.evaluation.image_pairs import Pair, score_pair
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.pictures.opening import MAX_PIXELS, PNG_START

_PAIRS_AT_ONCE = 32
# While one part is counted in Rust, the next one is made ready.
_PARTS_AT_ONCE = 2
# The start of a PNG: its first chunk says width, height, and how pixels are stored. These are 8 bits of RGB (2), not
# interlaced, in the only ways to compress and to filter that there are.
_PNG_HEAD = struct.Struct(">8sI4sII5sI")
_EIGHT_BIT_RGB = bytes([8, 2, 0, 0, 0])
_HEADER_CHUNK = slice(12, 29)
_LARGEST_INT = 2**31
# Read by hotcoco when it first counts.
_THREADS = "RAYON_NUM_THREADS"


def can_score(pairs: Sequence[Pair]) -> bool:
    """Whether hotcoco is installed and the pairs are local files in COCO's format."""
    return importlib.util.find_spec("hotcoco") is not None and all(
        isinstance(truth, CocoTrueImage)
        and isinstance(prediction, CocoPredictedImage)
        and not files.is_remote(truth.path)
        and not files.is_remote(prediction.path)
        for truth, prediction in pairs
    )


def score_pairs(
    figures: ImageFigures,
    pairs: Sequence[Pair],
    threads: int | None = None,
    on_progress: Callable[[int], object] = lambda images: None,
) -> None:
    """`image_pairs.score_pairs`, for pairs of which `can_score` is true.

    Args:
        figures: as there, and so are `pairs` and `on_progress`.
        threads: how many threads to use; None: one for each core. hotcoco keeps the number of the first call.
    """
    if threads is not None:
        os.environ.setdefault(_THREADS, str(threads))
    num_classes = len(figures.classes)
    with concurrent.futures.ThreadPoolExecutor(1 if threads == 1 else _PARTS_AT_ONCE) as executor:
        starts = range(0, len(pairs), _PAIRS_AT_ONCE)
        parts = [pairs[start : start + _PAIRS_AT_ONCE] for start in starts]
        try:
            for part, states in zip(parts, executor.map(_score_part, parts, itertools.repeat(num_classes))):
                for pair, state in zip(part, states):
                    figures.add(pair.truth.name, state)
                on_progress(len(part))
        except BaseException:
            executor.shutdown(wait=True, cancel_futures=True)
            raise


def _score_part(part: Sequence[Pair], num_classes: int) -> list[np.ndarray]:
    """The state of each pair."""
    states: dict[int, np.ndarray] = {}
    plain = [number for number, pair in enumerate(part) if _is_plain(*pair)]
    # `score_pair` says which file is at fault, and why; or it takes what hotcoco does not.
    with contextlib.suppress(ValueError, OSError):
        states.update(_states([part[number] for number in plain], plain, num_classes))
    return [states[number] if number in states else score_pair(pair, num_classes) for number, pair in enumerate(part)]


def _states(pairs: Sequence[Any], numbers: Sequence[int], num_classes: int) -> dict[int, np.ndarray]:
    """The state of each pair by its number."""
    from hotcoco import panoptic

    categories, truths, predictions = set(), [], []
    for number, (truth, prediction) in zip(numbers, pairs):
        # The classes of this image are told from those of others. A class of 0 is that of none.
        first = number * num_classes + 1
        sides = []
        for image, is_truth in ((truth, True), (prediction, False)):
            segments = []
            for segment in image.listed:
                index = image.index.get(segment["category_id"])
                if index is None and is_truth:
                    continue
                category = 0 if index is None else first + index
                categories.add(category)
                area, crowd = (segment["area"], segment["iscrowd"]) if is_truth else (0, 0)
                segments.append({"id": segment["id"], "category_id": category, "area": area, "iscrowd": int(crowd)})
            sides.append({"image_id": number, "file_name": os.path.abspath(image.path), "segments_info": segments})
        truths.append(sides[0])
        predictions.append(sides[1])
    categories.discard(0)
    evaluation = panoptic.PanopticEval(
        {
            "images": [],
            "annotations": truths,
            "categories": [{"id": c, "name": str(c), "isthing": 1} for c in sorted(categories)],
        },
        {"annotations": predictions},
        gt_folder=os.sep,
        pred_folder=os.sep,
    )
    evaluation.evaluate()
    states = {number: np.zeros((4, num_classes)) for number in numbers}
    for category, row in evaluation.results()["per_class"].items():
        number, index = divmod(category - 1, num_classes)
        states[number][:, index] = row["iou"], row["tp"], row["fp"], row["fn"]
    return states


def _is_plain(truth: Any, prediction: Any) -> bool:
    """Whether hotcoco takes a CocoTrueImage and a CocoPredictedImage as panopticapi does, unless it refuses them."""
    try:
        of_truth = all(
            _is_count(s["id"]) and _is_count(s["category_id"]) and _is_count(s["area"]) and s["iscrowd"] in (0, 1)
            for s in truth.listed
        )
        of_prediction = all(_is_count(s["id"]) and _is_count(s["category_id"]) for s in prediction.listed)
    except (KeyError, TypeError):
        return False
    return of_truth and of_prediction and _is_plain_png(truth.path) and _is_plain_png(prediction.path)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST_INT


def _is_plain_png(path: str) -> bool:
    """Whether a file is a PNG of RGB with 8 bits, which all decoders read alike.

    hotcoco takes the size of a picture at its word, and a broken one that claims to be huge would end the process.
    """
    try:
        with files.open_to_read(path) as file:
            head: bytes = file.read(_PNG_HEAD.size)
    except OSError:
        return False
    if len(head) < _PNG_HEAD.size:
        return False
    start, _, _, width, height, storage, checksum = _PNG_HEAD.unpack(head)
    return (
        start == PNG_START
        and storage == _EIGHT_BIT_RGB
        and width * height <= MAX_PIXELS
        and checksum == zlib.crc32(head[_HEADER_CHUNK])
    )
