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
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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
_FLAGS = {0: 0, 1: 1}
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


class _Plain(NamedTuple):
    """A pair that hotcoco takes as panopticapi does, unless it refuses it: annotations, and the classes in them.

    The classes are numbered anew, so that those of one image are told from those of others.
    """

    truth: dict[str, Any]
    prediction: dict[str, Any]
    categories: set[int]


def _score_part(part: Sequence[Pair], num_classes: int) -> list[np.ndarray]:
    """The state of each pair."""
    found = {number: _plain(number, *pair, num_classes) for number, pair in enumerate(part)}
    plain = {number: each for number, each in found.items() if each is not None}
    states: dict[int, np.ndarray] = {}
    # `score_pair` says which file is at fault, and why; or it takes what hotcoco does not.
    with contextlib.suppress(ValueError, OSError):
        states = _states(plain, num_classes)
    return [states[number] if number in states else score_pair(pair, num_classes) for number, pair in enumerate(part)]


def _states(plain: Mapping[int, _Plain], num_classes: int) -> dict[int, np.ndarray]:
    """The state of each pair by its number."""
    from hotcoco import panoptic

    categories = sorted(set().union(*(each.categories for each in plain.values())))
    evaluation = panoptic.PanopticEval(
        {
            "images": [],
            "annotations": [each.truth for each in plain.values()],
            "categories": [{"id": c, "name": "", "isthing": 1} for c in categories],
        },
        {"annotations": [each.prediction for each in plain.values()]},
        gt_folder=os.sep,
        pred_folder=os.sep,
    )
    evaluation.evaluate()
    states = {number: np.zeros((4, num_classes)) for number in plain}
    for category, row in evaluation.results()["per_class"].items():
        number, index = divmod(category - 1, num_classes)
        states[number][:, index] = row["iou"], row["tp"], row["fp"], row["fn"]
    return states


def _plain(number: int, truth: Any, prediction: Any, num_classes: int) -> _Plain | None:
    """A CocoTrueImage and a CocoPredictedImage for hotcoco, or None where it might take them in another way."""
    first = number * num_classes + 1
    try:
        true_segments = [
            {
                "id": _count(segment["id"]),
                "category_id": first + truth.index[segment["category_id"]],
                "area": _count(segment["area"]),
                "iscrowd": _FLAGS[segment["iscrowd"]],
            }
            for segment in truth.listed()
            # The others are no segments, though not void either.
            if _count(segment["category_id"]) in truth.index
        ]
        predicted_segments = [
            {"id": _count(segment["id"]), "category_id": first + prediction.index[_count(segment["category_id"])]}
            for segment in prediction.listed()
        ]
    except (KeyError, TypeError):
        return None
    if not (_is_plain_png(truth.path) and _is_plain_png(prediction.path)):
        return None
    of_truth, of_prediction = (
        {"image_id": number, "file_name": os.path.abspath(image.path), "segments_info": segments}
        for image, segments in ((truth, true_segments), (prediction, predicted_segments))
    )
    categories = {segment["category_id"] for segment in (*true_segments, *predicted_segments)}
    return _Plain(of_truth, of_prediction, categories)


def _count(value: Any) -> int:
    """A whole number as hotcoco reads it; raises TypeError for others."""
    if type(value) is not int or not 0 <= value < _LARGEST_INT:
        raise TypeError
    return value


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
