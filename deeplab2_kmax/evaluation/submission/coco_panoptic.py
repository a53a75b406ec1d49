"""Predictions in COCO's panoptic format: JSON and PNGs, in a folder or in a ZIP file as COCO's test server takes it."""

from __future__ import annotations

import collections
import io
import json
import os
import posixpath
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from deeplab2_kmax import files
from deeplab2_kmax.datasets.segment_colors import ids_to_colors
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.scoring.label_maps import DIVISOR
from deeplab2_kmax.evaluation.submission.predicted_maps import PredictedMap, PredictionFolder
from deeplab2_kmax.names import image_key, without_ending
from deeplab2_kmax.wording import quoted

# Makes a file of a name and its content.
_Write = Callable[[str, bytes], None]


def write_coco_zip(
    predictions: PredictionFolder,
    path: str,
    images_json: str | None = None,
    on_progress: Callable[[int], object] = lambda images: None,
) -> None:
    """Writes a ZIP file for COCO's test server, which asks for names like `panoptic_test-dev2017_kmax_results.zip`.

    It holds `<name>.json` and the PNGs in the folder `<name>/`, where <name> is that of the ZIP file.

    Args:
        predictions: of all images.
        path: of the ZIP file, local or remote.
        images_json: a JSON with "images", such as image_info_test-dev2017.json, which says the id of each image; None:
            the names of images are their ids, as COCO's are.
        on_progress: called with 1 after each image.

    Raises:
        DataError: an image has no id of its own, no prediction, or one of another size; or its classes are others.
        OSError: the file cannot be written.
    """
    ids, sizes = (
        ({n: _number_of(n) for n in predictions.names}, {})
        if images_json is None
        else _listed_images(predictions, images_json)
    )
    stem = os.path.splitext(posixpath.basename(path.replace(os.sep, "/")))[0]
    with files.atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # PNGs do not get smaller; the JSON does.
        def write(name: str, content: bytes) -> None:
            is_json = name.endswith(".json")
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if is_json else zipfile.ZIP_STORED)

        def require_size(prediction: PredictedMap) -> None:
            size = sizes.get(prediction.name)
            if size is not None and size != prediction.ids.shape:
                raise DataError(
                    f"image {quoted(prediction.name)}: expected a prediction of height x width {size[0]} x {size[1]},"
                    f" as {images_json} says, got {prediction.ids.shape[0]} x {prediction.ids.shape[1]}; predict the"
                    " images of the test set"
                )

        _write(predictions, ids, stem, ".png", write, on_progress, require_size)


def write_cityscapes_panoptic(
    predictions: PredictionFolder, folder: str, on_progress: Callable[[int], object] = lambda images: None
) -> None:
    """Writes `cityscapes_panoptic.json` and the folder `cityscapes_panoptic/`, for evalPanopticSemanticLabeling.

    Args:
        predictions: of all images.
        folder: to write to.
        on_progress: called with 1 after each image.

    Raises:
        DataError: a prediction cannot be read.
        OSError: a file cannot be written.
    """
    ids = {name: posixpath.basename(image_key(name)) for name in predictions.names}

    def write(name: str, content: bytes) -> None:
        files.write_bytes(files.join(folder, name), content)

    _write(predictions, ids, "cityscapes_panoptic", "_panoptic.png", write, on_progress)


def _write(
    predictions: PredictionFolder,
    image_ids: Mapping[str, Any],
    stem: str,
    ending: str,
    write: _Write,
    on_progress: Callable[[int], object],
    require: Callable[[PredictedMap], object] = lambda prediction: None,
) -> None:
    annotations = []
    for prediction in predictions:
        require(prediction)
        file_name = f"{posixpath.basename(prediction.name)}{ending}"
        png, segments = _encoded(prediction)
        write(f"{stem}/{file_name}", png)
        annotations.append({"image_id": image_ids[prediction.name], "file_name": file_name, "segments_info": segments})
        on_progress(1)
    categories = [
        {"id": c.source_id, "name": c.name, "isthing": int(c.is_thing), "color": list(c.color)}
        for c in predictions.dataset.classes
    ]
    content = {"annotations": annotations, "categories": categories}
    write(f"{stem}.json", json.dumps(content).encode())


def _encoded(prediction: PredictedMap) -> tuple[bytes, list[dict[str, int]]]:
    """The PNG of segment ids 1, 2, ..., where 0 is void, and `segments_info`."""
    ids = prediction.segment_ids()
    numbers = {segment_id: number for number, segment_id in enumerate(ids, start=1)}
    numbered = prediction.by_id(numbers.__getitem__, 0)
    areas = np.bincount(numbered.ravel(), minlength=len(ids) + 1).tolist()
    segments = [
        {"id": number, "category_id": segment_id // DIVISOR, "area": areas[number], "iscrowd": 0}
        for segment_id, number in numbers.items()
    ]
    encoded = io.BytesIO()
    Image.fromarray(ids_to_colors(numbered)).save(encoded, "PNG")
    return encoded.getvalue(), segments


def _listed_images(
    predictions: PredictionFolder, images_json: str
) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
    """The id of each image, and height and width of those for which the file says them."""
    try:
        content = files.read_json(images_json)
        images = {without_ending(image["file_name"]): image for image in content["images"]}
        ids = {name: image["id"] for name, image in images.items()}
        names = collections.defaultdict(list)
        for name, image_id in ids.items():
            names[image_id].append(name)
        sizes = {n: (int(i["height"]), int(i["width"])) for n, i in images.items() if "height" in i and "width" in i}
        categories = {c["id"]: c["name"] for c in content.get("categories", ())}
    except OSError as error:
        raise DataError(f"{images_json}: cannot read the images: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f'{images_json}: expected JSON with "images", each with id and file_name, such as COCO\'s'
            " image_info_test-dev2017.json; got another or a broken JSON"
        ) from error
    for image_id, shared in names.items():
        if len(shared) > 1:
            raise DataError(
                f"{images_json}: expected an id for each image, got id {quoted(image_id)} for {quoted(shared[0])} and"
                f" {quoted(shared[1])}; number them in the JSON"
            )
    # COCO's list has the classes of things only.
    known = {c.source_id: c.name for c in predictions.dataset.classes}
    for category_id, category in categories.items():
        if known.get(category_id) != category:
            got = quoted(known[category_id]) if category_id in known else "no such class"
            raise DataError(
                f"{images_json}: expected the classes of the test set, where {quoted(category_id)} is"
                f" {quoted(category)}; got {got} of {predictions.dataset.name}. Name the data set of the predictions by"
                " --dataset, and the list of images of that data set by --images"
            )
    _require_same(ids, predictions.names, images_json)
    return {name: ids[name] for name in predictions.names}, sizes


def _require_same(known: Iterable[str], predicted: Iterable[str], where: str) -> None:
    for expected, got, side in ((known, predicted, "a prediction of"), (predicted, known, "no prediction but of")):
        if missing := sorted(set(expected) - set(got)):
            raise DataError(
                f"{where}: expected {side} each of its images, which the test server asks for; image"
                f" {quoted(missing[0])} is {'missing' if side.startswith('a ') else 'not among them'}"
                f" ({len(missing):,} in all)"
            )


def _number_of(name: str) -> int:
    if not name.isdecimal():
        raise DataError(
            f"image {quoted(name)}: expected a name that is the id of the image, as COCO's are; name the JSON that has"
            " the ids by --images"
        )
    return int(name)
