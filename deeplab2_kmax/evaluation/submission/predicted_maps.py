"""Predictions that `deeplab2-kmax predict` or evaluation has written, in one form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from deeplab2_kmax.datasets import DatasetDescriptor, load_dataset
from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.evaluation.prediction_files import source_id_of_void
from deeplab2_kmax.evaluation.scoring.label_maps import (
    DIVISOR,
    PANOPTIC_ENDING,
    SEGMENTS_ENDING,
    MapFolder,
    SegmentTable,
    has_file,
    raw_folder,
    read_colors,
    read_file,
)
from deeplab2_kmax.records.label_runs import LabelRuns
from deeplab2_kmax.wording import counted

VOID_ID = -1


class PredictedMap(NamedTuple):
    """What a model says of an image.

    Attributes:
        name: of the image, without what Cityscapes adds to it.
        ids: int64 [H, W], class * `DIVISOR` + instance, with the ids that classes have in the data set's own annotation
            files; `VOID_ID` for void.
        scores: the confidence of each id, 0..1; empty where it is not known.
    """

    name: str
    ids: np.ndarray
    scores: Mapping[int, float]

    def by_id(self, of_id: Callable[[int], int], void: int) -> np.ndarray:
        """The map with another number for each id, and `void` for void."""
        runs = LabelRuns(self.ids)
        return runs.paint(np.array([void if i == VOID_ID else of_id(i) for i in runs.values.tolist()], np.int64))

    def segment_ids(self) -> list[int]:
        """The ids that occur, ascending, without void."""
        return [i for i in LabelRuns(self.ids).values.tolist() if i != VOID_ID]


class PredictionFolder:
    """The predictions of a folder.

    Args:
        folder: what `predict` has written, or raw maps; local or remote.
        dataset: name or descriptor file of the data set; None: that which `predict` has noted.
        raw_format: of raw maps, see `raw_folder`.
        training_ids: whether raw maps hold the class ids of training.

    Attributes:
        dataset: the data set.
        names: of the images, ascending.

    Raises:
        DataError: the folder has no predictions.
        UserError: raw maps do not say their data set.
    """

    def __init__(
        self, folder: str, dataset: str | None = None, raw_format: str | None = None, training_ids: bool = False
    ) -> None:
        self._training_ids = training_ids
        if has_file(folder, SEGMENTS_ENDING):
            self._files, self._decode = MapFolder(folder, [PANOPTIC_ENDING]), None
            first = next(iter(self._files.paths.values()))
            self.dataset: DatasetDescriptor = load_dataset(dataset or SegmentTable.beside(first).dataset)
            self._dataset_name = dataset
        elif dataset is None:
            raise UserError(f"{folder}: expected the data set of raw maps, which do not say it; name it by --dataset")
        else:
            self._files, self._decode = raw_folder(folder, raw_format)
            self.dataset = load_dataset(dataset)
        self._source_ids = {c.id: c.source_id for c in self.dataset.classes}
        self.names = sorted(self._files.paths)

    def __iter__(self) -> Iterator[PredictedMap]:
        """The predictions one after the other, by name; raises DataError for one that cannot be read."""
        for name in self.names:
            path = self._files.paths[name]
            yield self._predicted(name, path) if self._decode is None else self._raw(name, path)

    def _predicted(self, name: str, path: str) -> PredictedMap:
        table = SegmentTable.beside(path)
        source_ids = table.source_ids(self._dataset_name)
        runs = LabelRuns(read_colors(path))
        new, scores = [], {}
        for segment_id, area in runs.items():
            if segment_id not in source_ids:
                raise DataError(
                    f"{path}: expected the segments of {table.path}, got {counted(area, 'pixel')} of segment"
                    f" {segment_id}, which is not there; predict the picture again"
                )
            class_id = source_ids[segment_id]
            new_id = VOID_ID
            if class_id is not None:
                new_id = class_id * DIVISOR + segment_id % self.dataset.label_divisor
                scores[new_id] = table.scores[segment_id]
            new.append(new_id)
        return PredictedMap(name, runs.paint(np.array(new, np.int64)), scores)

    def _raw(self, name: str, path: str) -> PredictedMap:
        assert self._decode is not None
        runs = LabelRuns(self._decode(read_file(path), path))
        known = self._source_ids if self._training_ids else {i: i for i in self._source_ids.values()}
        void = self.dataset.ignore_label if self._training_ids else source_id_of_void(self._source_ids.values())
        new = []
        for value, area in runs.items():
            class_id, instance = divmod(value, DIVISOR)
            if class_id not in known and class_id != void:
                raise DataError(
                    f"{path}: expected classes of {self.dataset.name}, got {counted(area, 'pixel')} of class"
                    f" {class_id}; see whether --dataset fits, and whether the maps hold training ids (--training_ids)"
                )
            new.append(VOID_ID if class_id not in known else known[class_id] * DIVISOR + instance)
        return PredictedMap(name, runs.paint(np.array(new, np.int64)), {})
