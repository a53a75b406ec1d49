"""Results for Cityscapes' semantic and instance benchmarks, as cityscapesscripts and its test server take them."""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Callable

import numpy as np
from absl import logging
from PIL import Image

from deeplab2_kmax import files
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.scoring.label_maps import DIVISOR
from deeplab2_kmax.evaluation.submission.predicted_maps import PredictionFolder
from deeplab2_kmax.names import image_key
from deeplab2_kmax.wording import quoted

# The class of pixels without a label.
_UNLABELED = 0
_LARGEST_BYTE = 255
_MASKS = "masks"
_DATASET = "cityscapes_panoptic"
_NAME = re.compile(r"[A-Za-z-]+_[0-9]{6}_[0-9]{6}")


def require_cityscapes(predictions: PredictionFolder) -> None:
    """Raises DataError for classes or names of images that Cityscapes' scripts would take for something else."""
    known = {c.source_id: c.name for c in load_dataset(_DATASET).classes}
    for c in predictions.dataset.classes:
        if known.get(c.source_id) != c.name:
            raise DataError(
                f"{predictions.dataset.name}: expected the classes of Cityscapes, such as 24 person, got {c.source_id}"
                f" {quoted(c.name)}; results for Cityscapes can be written of a model for {_DATASET} only"
            )
    for name in predictions.names:
        if not _NAME.fullmatch(_base(name)):
            raise DataError(
                f"image {quoted(name)}: expected a name <city>_<sequence>_<frame> as Cityscapes' images have, such as"
                " berlin_000000_000019_leftImg8bit, got another; predict the images of Cityscapes"
            )


def write_semantic(
    predictions: PredictionFolder, folder: str, on_progress: Callable[[int], object] = lambda images: None
) -> None:
    """Writes `<city>_<sequence>_<frame>.png` of each image: grey, the class ids of Cityscapes' labelIds.

    Args:
        predictions: of all images.
        folder: to write to.
        on_progress: called with 1 after each image.

    Raises:
        DataError: a prediction cannot be read, or has a class that no grey PNG can hold.
        OSError: a file cannot be written.
    """
    for prediction in predictions:
        classes = prediction.by_id(lambda segment_id: segment_id // DIVISOR, _UNLABELED)
        if classes.max(initial=0) > _LARGEST_BYTE:
            raise DataError(
                f"{prediction.name}: expected classes up to {_LARGEST_BYTE}, as Cityscapes has, got {classes.max()};"
                " see whether --dataset fits"
            )
        _save_png(files.join(folder, f"{_base(prediction.name)}.png"), classes.astype(np.uint8))
        on_progress(1)


def write_instances(
    predictions: PredictionFolder, folder: str, on_progress: Callable[[int], object] = lambda images: None
) -> None:
    """Writes `<city>_<sequence>_<frame>.txt` of each image: mask, class and confidence of each thing; and the masks.

    Raw maps do not say how sure the model was: each thing then has confidence 1, which makes average precision worse.

    Args:
        predictions: of all images.
        folder: to write to.
        on_progress: called with 1 after each image.

    Raises:
        DataError: a prediction cannot be read.
        OSError: a file cannot be written.
    """
    things = {c.source_id for c in predictions.dataset.classes if c.is_thing}
    warned = False
    for prediction in predictions:
        base = _base(prediction.name)
        lines: list[str] = []
        for segment_id in prediction.segment_ids():
            class_id = segment_id // DIVISOR
            if class_id not in things:
                continue
            if segment_id not in prediction.scores and not warned:
                logging.warning(
                    "raw maps do not say how sure the model was of a segment, so that each has confidence 1 and average"
                    " precision is lower than it could be; what `deeplab2-kmax predict` writes says it"
                )
                warned = True
            mask = f"{_MASKS}/{base}_{len(lines):03d}.png"
            _save_png(files.join(folder, mask), np.where(prediction.ids == segment_id, 255, 0).astype(np.uint8))
            lines.append(f"{mask} {class_id} {prediction.scores.get(segment_id, 1.0):.6f}\n")
        files.write_text(files.join(folder, f"{base}.txt"), "".join(lines))
        on_progress(1)


def _base(name: str) -> str:
    """<city>_<sequence>_<frame>."""
    return posixpath.basename(image_key(name))


def _save_png(path: str, pixels: np.ndarray) -> None:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    files.write_bytes(path, encoded.getvalue())
