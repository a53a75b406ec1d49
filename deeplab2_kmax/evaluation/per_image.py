"""Panoptic quality image by image: which images are good or bad, and resampling of images, without evaluating again.

Evaluation and `deeplab2-kmax score` write an `ImageFigures` to `images-<step>.npz`, beside the `metrics-<step>.json`
that holds its sum. Only the classes that occur in an image take memory.
"""

from __future__ import annotations

import array
import dataclasses
import io
import json
import math
import os
import posixpath
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.datasets import SegmentClass
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.panoptic_quality import Categories, PanopticQualityResult
from deeplab2_kmax.wording import one_line

_VERSION = 1
_ROWS = 4
# What damage to an .npz, or a file of another kind, may lead to.
_BROKEN = (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


class ImageFigures:
    """The state of panoptic quality, see `PanopticQuality.state`, of each image of a data set.

    Args:
        dataset: its name.
        classes: its classes, C, in the order of the columns of a state.
        settings: identifies what the figures depend on besides the checkpoint; as in `metrics-<step>.json`.
    """

    def __init__(self, dataset: str, classes: Sequence[SegmentClass], settings: str = "") -> None:
        self.dataset = dataset
        self.classes = tuple(classes)
        self.settings = settings
        self.names: list[str] = []
        # An entry for each image and class that occurs in it: where the entries of an image end, their classes, and
        # their four figures. Arrays of plain numbers take a tenth of the memory of a list of arrays.
        self._ends = array.array("q")
        self._columns = array.array("i")
        self._figures = array.array("d")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.names)

    def add(self, name: str, state: np.ndarray) -> None:
        """Adds an image.

        Args:
            name: of the image. Several images may have one name; each counts.
            state: float64 [4, C]: sum of IoU, TP, FP, FN of each class in this image.
        """
        # Of a class with neither TP, FP nor FN there is no IoU either.
        columns = np.flatnonzero(state[1:].any(0))
        self.names.append(name)
        self._columns.extend(columns.tolist())
        self._figures.extend(state[:, columns].T.ravel().tolist())
        self._ends.append(len(self._columns))

    def extend(self, other: ImageFigures) -> None:
        """Adds the images of another part of the same data set, such as that of another worker."""
        before = len(self._columns)
        self.names += other.names
        self._columns += other._columns
        self._figures += other._figures
        self._ends.extend(before + end for end in other._ends)

    def states(self) -> np.ndarray:
        """The state of each image, float64 [N, 4, C]; of 5,000 images of COCO 21 MB."""
        states = np.zeros((len(self), _ROWS, len(self.classes)))
        images = np.repeat(np.arange(len(self)), np.diff(self._ends, prepend=0))
        states[images, :, np.array(self._columns, np.int64)] = self._entries()
        return states

    def state(self) -> np.ndarray:
        """The sum over all images, float64 [4, C].

        It is the exact sum, rounded once, so that it does not depend on the order of the images or on who counted them.
        """
        order = np.argsort(np.array(self._columns, np.int64), kind="stable")
        columns, entries = np.array(self._columns, np.int64)[order], self._entries()[order]
        starts = np.searchsorted(columns, np.arange(len(self.classes) + 1))
        sums = np.zeros((_ROWS, len(self.classes)))
        for column, (start, end) in enumerate(zip(starts[:-1], starts[1:])):
            sums[:, column] = [math.fsum(values) for values in entries[start:end].T.tolist()]
        return sums

    def result(self) -> PanopticQualityResult:
        """The panoptic quality of all images, which is what `metrics-<step>.json` holds."""
        return PanopticQualityResult(Categories(self.dataset, self.classes), *self.state())

    def _entries(self) -> np.ndarray:
        return np.array(self._figures).reshape(-1, _ROWS)

    def to_bytes(self) -> bytes:
        """The content of a file, an .npz without pickled objects."""
        about = {
            "version": _VERSION,
            "dataset": self.dataset,
            "settings": self.settings,
            "classes": [dataclasses.asdict(c) for c in self.classes],
            "names": self.names,
        }
        content = io.BytesIO()
        np.savez_compressed(
            content,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            ends=np.array(self._ends, "<i8"),
            columns=np.array(self._columns, "<i4"),
            figures=np.array(self._figures, "<f8"),
        )
        return content.getvalue()

    def save(self, path: files.StrPath) -> None:
        """Writes a file, local or remote; raises OSError."""
        files.write_bytes(path, self.to_bytes())

    @classmethod
    def from_bytes(cls, content: bytes, name: files.StrPath) -> ImageFigures:
        """The reverse of `to_bytes`; `name` is what messages call the file. Raises DataError."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                ends, columns, values = (arrays[key] for key in ("ends", "columns", "figures"))
            if about["version"] != _VERSION:
                raise DataError(
                    f"{name}: expected figures of images of version {_VERSION}, got version {about['version']}; use the"
                    " deeplab2_kmax that wrote the file, or score again"
                )
            figures = cls(about["dataset"], [_segment_class(c) for c in about["classes"]], about["settings"])
            figures.names = [str(each) for each in about["names"]]
            figures._ends.frombytes(ends.astype(np.int64).tobytes())
            figures._columns.frombytes(columns.astype(np.int32).tobytes())
            figures._figures.frombytes(values.astype(np.float64).tobytes())
            figures._require_consistency()
            figures._require_figures(name)
        except DataError:
            raise
        except _BROKEN as error:
            raise DataError(
                f"{name}: expected an images-<step>.npz of an evaluation or of `deeplab2-kmax score`, got a file that"
                " is broken or of another kind; evaluate or score again"
            ) from error
        return figures

    @classmethod
    def load(cls, path: files.StrPath) -> ImageFigures:
        """Reads a file, local or remote.

        Raises:
            DataError: the file is missing, broken, or of another kind.
        """
        try:
            content = files.read_bytes(path)
        except OSError as error:
            raise DataError(f"{path}: cannot read the figures of images: {error.strerror}") from error
        return cls.from_bytes(content, path)

    def _require_consistency(self) -> None:
        """Raises ValueError where the parts of a file do not fit each other."""
        ends = np.array(self._ends, np.int64)
        columns = np.array(self._columns, np.int64)
        fit = (
            len(ends) == len(self.names)
            and (np.diff(ends, prepend=0) >= 0).all()
            and (ends[-1] if len(ends) else 0) == len(columns)
            and len(self._figures) == _ROWS * len(columns)
            and ((columns >= 0) & (columns < len(self.classes))).all()
        )
        if not fit:
            raise ValueError("the parts of the file do not fit each other")

    def _require_figures(self, path: files.StrPath) -> None:
        """Raises DataError where a figure is no finite number from 0."""
        entries = self._entries()
        wrong = np.flatnonzero(~((entries >= 0) & np.isfinite(entries)).all(1))
        if len(wrong):
            image = int(np.searchsorted(np.array(self._ends, np.int64), wrong[0], side="right"))
            raise DataError(
                f"{path}: expected figures that are finite and not negative, got {entries[wrong[0]].tolist()} (IoU, TP,"
                f" FP, FN) of image {one_line(self.names[image])}; evaluate or score again"
            )


def figures_path(metrics_path: str) -> str:
    """The path of the figures of images that belong to a file of metrics.

    Args:
        metrics_path: such as `eval/metrics-150000.json`, see `result_path`, or any other JSON file.

    Returns:
        `eval/images-150000.npz`; for a file of another name, that with the ending `-images.npz`.
    """
    folder, name = files.parent(metrics_path), posixpath.basename(metrics_path.replace(os.sep, "/"))
    stem = os.path.splitext(name)[0]
    stem = f"images{stem[len('metrics') :]}" if stem.startswith("metrics-") else f"{stem}-images"
    return files.join(folder, f"{stem}.npz")


def _segment_class(fields: dict[str, Any]) -> SegmentClass:
    """A class as `dataclasses.asdict` and JSON leave it, in which the color is a list."""
    return SegmentClass(**{**fields, "color": tuple(fields["color"])})
