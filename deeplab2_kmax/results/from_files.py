"""Images of reports and comparisons from files of predictions, of any model and in all formats that `score` reads."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence

import numpy as np
from absl import logging

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.image_pairs import Pair, read_maps
from deeplab2_kmax.evaluation.panoptic_quality import compare_segments, overlap_table
from deeplab2_kmax.evaluation.scoring.records import RecordLabel
from deeplab2_kmax.evaluation.scoring.score import FilePairs, Options, read_pairs
from deeplab2_kmax.names import image_key, without_ending
from deeplab2_kmax.pictures import decode_image, read_image
from deeplab2_kmax.records import example, schema, tfrecord
from deeplab2_kmax.results.report_data import LabelledMap, ReportImage, gather
from deeplab2_kmax.results.report_page import About, report_page
from deeplab2_kmax.wording import counted, quoted


def files_report(
    truth: str, prediction: str, options: Options, command: str, image_folder: str | None = None, pictures: int = 6
) -> str:
    """The page of predictions in files.

    Args:
        truth: see `score_files`.
        prediction: see there.
        options: how to read them.
        command: that makes the report.
        image_folder: the images themselves, found by name; None: those in the records, if the truth is in records.
        pictures: how many of the best and of the worst images are shown.

    Raises:
        DataError, UserError: as `score_files`.
    """
    found = read_pairs(truth, prediction, options)
    photos = Photos(image_folder, found.pairs)
    data = gather(
        (report_image(pair, len(found.categories.classes)) for pair in found.pairs), found.categories, pictures
    )
    if not data.images:
        raise DataError(f"{truth}: expected at least one image, got none")
    name = os.path.basename(os.path.normpath(prediction))
    about = About(
        title=f"Predictions in {name}", subtitle=f"{prediction} \N{MIDDLE DOT} truth: {truth}", command=command
    )
    return report_page(data, about, lambda judged: photos.of(found.pairs[judged.number]))


def report_image(pair: Pair, num_classes: int) -> ReportImage:
    """The maps of an image, with the state of panoptic quality that `score` finds.

    Raises:
        DataError: a map cannot be read, or the sizes differ.
    """
    truth, prediction = pair
    true_map, predicted_map = read_maps(pair)
    true_ids, predicted_ids, overlaps = overlap_table(true_map, predicted_map)
    predicted = prediction.segments(predicted_ids, overlaps.sum(0))
    true, shared = truth.segments(true_ids, overlaps)
    state = compare_segments(true, predicted, shared, num_classes)
    # Which ids the segments are: they "share" with each id either all of it or nothing.
    true, shares = truth.segments(true_ids, np.eye(len(true_ids)))
    classes, crowds = {}, set()
    for class_index, is_crowd, row in zip(true.classes.tolist(), true.crowd.tolist(), shares):
        for place in np.flatnonzero(row) if class_index >= 0 else ():
            classes[int(true_ids[place])] = class_index
            if is_crowd:
                crowds.add(int(true_ids[place]))
    predicted_classes = {
        i: class_index for i, class_index in zip(predicted_ids.tolist(), predicted.classes.tolist()) if class_index >= 0
    }
    return ReportImage(
        truth.name,
        LabelledMap(true_map, classes, frozenset(crowds)),
        LabelledMap(predicted_map, predicted_classes),
        state=state,
    )


def by_image_key(found: FilePairs) -> dict[str, int]:
    """The place of each image by what its names have in common.

    Raises:
        DataError: two images have the same name in different folders.
    """
    places: dict[str, int] = {}
    for number, pair in enumerate(found.pairs):
        first = places.setdefault(key_of(pair.truth.name), number)
        if first != number:
            raise DataError(
                f"images {quoted(found.pairs[first].truth.name)} and {quoted(pair.truth.name)}: expected names that"
                " differ in more than their folders, to find the images of the results by; leave the pictures out"
            )
    return places


def key_of(name: str) -> str:
    """What the names of one image have in common, in records, in files and in figures."""
    return image_key(without_ending(os.path.basename(name)))


class Photos:
    """The images themselves.

    Args:
        folder: where they are, by name, below it in the folders that their names have; None: only records have theirs.
        pairs: whose images are looked for; a warning says so if the folder has none of them.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, folder: str | None, pairs: Sequence[Pair] = ()) -> None:
        self._folder = folder
        self._listed: dict[str, dict[str, str]] = {}
        if folder is None:
            return
        try:
            self._listed[""] = _by_key(folder)
        except OSError as error:
            raise DataError(f"{quoted(folder)}: cannot read the folder of images: {error.strerror}") from error
        if pairs and not any(self._path(pair.truth.name) for pair in pairs):
            logging.warning(
                "--image_folder: none of %s found in %s, so they are shown without; expected a name such as %s",
                counted(len(pairs), "image"), folder, f"{pairs[0].truth.name}.jpg",
            )  # fmt: skip

    def of(self, pair: Pair) -> np.ndarray | None:
        """The image of a pair, uint8 RGB [h, w, 3]; None where there is none."""
        path = self._path(pair.truth.name)
        if path is not None:
            return read_image(path)
        return _of_record(pair.truth) if isinstance(pair.truth, RecordLabel) else None

    def _path(self, name: str) -> str | None:
        """Where the image of this name is, in the folder that its name has or in that of all images."""
        if self._folder is None:
            return None
        below = posixpath.dirname(name)
        if below not in self._listed:
            try:
                self._listed[below] = _by_key(files.join(self._folder, below))
            except OSError:
                self._listed[below] = {}
        return self._listed[below].get(key_of(name)) or self._listed[""].get(key_of(name))


def _by_key(folder: str) -> dict[str, str]:
    """The paths of what is in a folder, by what the names of one image have in common."""
    return {key_of(name): files.join(folder, name) for name in files.list_folder(folder)}


def _of_record(label: RecordLabel) -> np.ndarray | None:
    data = tfrecord.read_record(label.shard, label.region)
    encoded = example.parse_example(data, (schema.IMAGE_ENCODED,)).get(schema.IMAGE_ENCODED) if data else None
    return decode_image(encoded, label.path) if isinstance(encoded, bytes) else None
