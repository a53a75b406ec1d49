"""What `deeplab2-kmax predict` writes and prints for picture files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from deeplab2_kmax import files
from deeplab2_kmax.cli.output_files import encode_png, for_each_picture, refuse_to_overwrite, write_result
from deeplab2_kmax.datasets.segment_colors import ids_to_colors
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.names import without_ending
from deeplab2_kmax.pictures import read_image
from deeplab2_kmax.serving.predictor import Prediction, Predictor
from deeplab2_kmax.visualization import display_scale
from deeplab2_kmax.wording import counted, shortened

if TYPE_CHECKING:
    from deeplab2_kmax.serving.pre_labels import PreLabels

OVERLAY, PANOPTIC, SEGMENTS = "_overlay.png", "_panoptic.png", "_segments.json"
# Leaves room for the other columns of the table in 80 columns.
_LONGEST_NAME = 37


def predict_file(predictor: Predictor, image: str, folder: str, name: str, keep: Iterable[str] = ()) -> Prediction:
    """Segments one picture file; writes its overlay, its panoptic map and its segment table.

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
        UserError: a result cannot be written, or would replace a file to keep.
    """
    targets = [files.join(folder, name + suffix) for suffix in (OVERLAY, PANOPTIC, SEGMENTS)]
    refuse_to_overwrite(keep, targets, image)
    prediction = predictor(read_image(image))
    # One after the other, so that never more than one of them is in memory.
    overlay, panoptic, segments = targets
    write_result(overlay, encode_png(prediction.overlay(scale=display_scale(*prediction.panoptic_map.shape))))
    write_result(panoptic, encode_png(ids_to_colors(prediction.panoptic_map)))
    write_result(segments, segments_as_json(prediction, image))
    return prediction


def segment_table(prediction: Prediction) -> str:
    """The segments as a table of text, largest first."""
    if not prediction.segments:
        return "  no segments: no mask is above the confidence thresholds"
    names = [shortened(segment.class_name, _LONGEST_NAME) for segment in prediction.segments]
    width = max(len("class"), *map(len, names))
    pixels = prediction.panoptic_map.size
    lines = [f"  {'class':{width}}  kind   score     area   share        id"]
    for name, segment in zip(names, prediction.segments):
        kind = "thing" if segment.is_thing else "stuff"
        lines.append(
            f"  {name:{width}}  {kind}  {segment.score:5.3f} {segment.area:8d}"
            f"  {segment.area / pixels:6.1%}  {segment.id:8d}"
        )
    return "\n".join(lines)


def segments_as_json(prediction: Prediction, image: str) -> bytes:
    """The content of a JSON file with the segments of a picture and what is needed to read its panoptic ids."""
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
    return files.json_text(table, indent=1).encode()


def predict_files(
    predictor: Predictor,
    images: list[str],
    folder: str | os.PathLike[str],
    report: Callable[[str], object],
    complain: Callable[[str], object],
    labels: Sequence[PreLabels] = (),
) -> int:
    """Segments picture files one after the other.

    Args:
        predictor: the model.
        images: as in `for_each_picture`.
        folder: as in `for_each_picture`.
        report: as in `for_each_picture`.
        complain: as in `for_each_picture`.
        labels: files for labelling tools, to be written to the folder at the end with all pictures that did not fail.

    Returns:
        The number of files that failed.

    Raises:
        UserError: results cannot be written, or one of them would replace an input; or two pictures have one name, by
            which labelling tools would not tell them apart.
    """
    if labels:
        _require_names_that_differ(images)
    done = 0

    def predict_one(image: str, folder: str, name: str) -> str:
        prediction = predict_file(predictor, image, folder, name, keep=images)
        height, width = prediction.panoptic_map.shape
        nonlocal done
        done += 1
        for each in labels:
            each.add(image, prediction)
        return f"{image} ({width} x {height}) -> {files.join(folder, name + OVERLAY)}\n{segment_table(prediction)}"

    failed = for_each_picture(predict_one, images, folder, report, complain)
    for each in labels if done else ():
        path = files.join(folder, each.file_name)
        refuse_to_overwrite(images, [path], path)
        write_result(path, each.content())
        report(f"labels of {counted(done, 'picture')} -> {path}")
    return failed


def _require_names_that_differ(images: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for image in dict.fromkeys(images):
        name = without_ending(os.path.basename(image))
        if name in seen:
            raise UserError(
                f"{image}: expected pictures whose names (without endings) differ, as labelling tools find them by"
                f" name; {seen[name]} has the same; predict them one after the other, into folders of their own"
            )
        seen[name] = image
