"""Predictions for picture files: what `deeplab2-kmax predict` writes and prints."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from deeplab2_kmax.cli.output_files import encode_png, for_each_picture, refuse_to_overwrite, write_whole
from deeplab2_kmax.serving.predictor import Prediction, Predictor
from deeplab2_kmax.serving.reading import read_image
from deeplab2_kmax.visualization import display_scale

OVERLAY, PANOPTIC, SEGMENTS = "_overlay.png", "_panoptic.png", "_segments.json"


def predict_file(predictor: Predictor, image: str, folder: Path, name: str, keep: Iterable[str] = ()) -> Prediction:
    """Segments one picture file and writes its overlay, its panoptic map and its segment table.

    The files are `<name>_overlay.png`; `<name>_panoptic.png`, whose pixels hold the panoptic id as R + 256 G + 65536 B;
    and `<name>_segments.json`, the table of these ids.

    Args:
      predictor: the model.
      image: path of the picture.
      folder: an existing folder to write to.
      name: first part of the names of the files written.
      keep: paths that must not be overwritten, such as all input pictures.

    Raises:
      DataError: the file is not a picture.
      UserError: a result cannot be written, or would take the place of a file to keep.
    """
    targets = [folder / (name + suffix) for suffix in (OVERLAY, PANOPTIC, SEGMENTS)]
    refuse_to_overwrite(keep, targets, image)
    prediction = predictor(read_image(image))
    drawn = prediction.overlay(scale=display_scale(*prediction.panoptic_map.shape))
    contents = (
        encode_png(drawn),
        encode_png(_ids_as_colors(prediction.panoptic_map)),
        segments_as_json(prediction, image),
    )
    for target, content in zip(targets, contents):
        write_whole(target, content)
    return prediction


def segment_table(prediction: Prediction) -> str:
    """The segments as lines of text, largest first."""
    if not prediction.segments:
        return "  no segments: nothing is above the confidence thresholds"
    width = max(len("class"), *(len(segment.class_name) for segment in prediction.segments))
    pixels = prediction.panoptic_map.size
    lines = [f"  {'class':{width}}  kind   score     area   share        id"]
    for segment in prediction.segments:
        kind = "thing" if segment.is_thing else "stuff"
        lines.append(
            f"  {segment.class_name:{width}}  {kind}  {segment.score:5.3f} {segment.area:8d}"
            f"  {segment.area / pixels:6.1%}  {segment.id:8d}"
        )
    return "\n".join(lines)


def segments_as_json(prediction: Prediction, image: str) -> bytes:
    """The segment table of a picture as JSON."""
    height, width = prediction.panoptic_map.shape
    table = {
        "image": image,
        "height": height,
        "width": width,
        "dataset": prediction.dataset.name,
        "label_divisor": prediction.dataset.label_divisor,
        "void_id": prediction.dataset.void_id,
        "segments": [dataclasses.asdict(segment) for segment in prediction.segments],
    }
    return (json.dumps(table, indent=1) + "\n").encode()


def _ids_as_colors(panoptic: np.ndarray) -> np.ndarray:
    """COCO's picture of a panoptic map: the id in base 256, lowest digit in red."""
    return np.stack([panoptic % 256, panoptic // 256 % 256, panoptic // 65536], -1).astype(np.uint8)


def predict_files(predictor: Predictor, images: list[str], folder: str | os.PathLike, report, complain) -> int:
    """Segments picture files one after the other; those that cannot be read are named and left out.

    Args:
      predictor: the model.
      images: paths.
      folder: where to write; made where missing.
      report: called with a text for each picture.
      complain: called with a text for each file that failed.

    Returns:
      the number of files that failed.
    """

    def predict_one(image: str, folder: Path, name: str) -> str:
        prediction = predict_file(predictor, image, folder, name, keep=images)
        height, width = prediction.panoptic_map.shape
        return f"{image} ({width} x {height}) -> {folder / (name + OVERLAY)}\n{segment_table(prediction)}"

    return for_each_picture(predict_one, images, folder, report, complain)
