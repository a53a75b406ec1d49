"""Finds the figures of each image that belong to a result, and brings those of several results into one order."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.per_image import ImageFigures, figures_path
from deeplab2_kmax.wording import counted, one_line, some_of

# Written by evaluation under the usual name; results under other settings have a longer one.
_USUAL = re.compile(r"images-(\d+)\.npz")
_NAMED = 3


def find_figures(path: str) -> str:
    """The file with the figures of each image.

    Args:
        path: `images-<step>.npz` or `metrics-<step>.json` of an evaluation, the file that `score --json` has written,
            or the folder of a run, of which the last evaluated step is taken. Local or remote.

    Raises:
        DataError: there is no such file.
    """
    if files.exists(path) and files.is_folder(path):
        for folder in (path, files.join(path, "eval")):
            names = files.list_folder(folder) if files.exists(folder) else []
            steps = {int(match[1]): match[0] for name in names if (match := _USUAL.fullmatch(name))}
            if steps:
                return files.join(folder, steps[max(steps)])
        raise DataError(
            f"{path}: expected images-<step>.npz there or in its folder eval, got none; evaluate the run with this"
            " version: deeplab2-kmax eval"
        )
    found = figures_path(path) if path.endswith(".json") else path
    if not files.exists(found):
        raise DataError(
            f"{path}: expected the figures of each image in {found}, got no such file; evaluate or score again with"
            " this version"
        )
    return found


def aligned_states(results: Sequence[ImageFigures], names: Sequence[str]) -> np.ndarray:
    """The states of all results with their images in the order of the first.

    Args:
        results: at least one.
        names: what messages call each.

    Returns:
        float64 [R, N, 4, C].

    Raises:
        DataError: the results are of different images or classes, or were measured on different truths.
    """
    first = results[0]
    if not len(first):
        raise DataError(f"{names[0]}: expected at least one image, got none; evaluate or score again")
    order = _order(first)
    states = [first.states()]
    for result, name in zip(results[1:], names[1:]):
        _require_same_classes(first, result, names[0], name)
        _require_same_images(first, result, names[0], name)
        matching = np.empty(len(order), np.int64)
        # The k-th image by name here is the k-th one there; images that share a name are in the order of the data set.
        matching[order] = _order(result)
        states.append(result.states()[matching])
        _require_same_truth(first, states[0], states[-1], names[0], name)
    return np.stack(states)


def _order(figures: ImageFigures) -> np.ndarray:
    return np.array(sorted(range(len(figures)), key=lambda index: figures.names[index]), np.int64)


def _require_same_images(first: ImageFigures, other: ImageFigures, name: str, other_name: str) -> None:
    if sorted(first.names) == sorted(other.names):
        return
    missing, added = (sorted({*a.names} - {*b.names}) for a, b in ((first, other), (other, first)))
    parts = [
        f"only {which} has {some_of(each, _NAMED)}" for which, each in ((name, missing), (other_name, added)) if each
    ] or ["some images occur more often in one of them"]
    raise DataError(
        f"{other_name}: expected the images of {name} ({counted(len(first), 'image')}), got"
        f" {counted(len(other), 'image')}: {'; '.join(parts)}. Evaluate both on the same set"
    )


def _require_same_classes(first: ImageFigures, other: ImageFigures, name: str, other_name: str) -> None:
    expected, found = ([(c.id, c.name, c.is_thing) for c in each.classes] for each in (first, other))
    if expected == found:
        return
    missing, added = (
        [f"{c[1]} ({c[0]}, {'thing' if c[2] else 'stuff'})" for c in a if c not in b]
        for a, b in ((expected, found), (found, expected))
    )
    parts = [
        f"only {which} has {some_of(each, _NAMED)}" for which, each in ((name, missing), (other_name, added)) if each
    ] or ["their order differs"]
    raise DataError(f"{other_name}: expected the classes of {name}, got others: {'; '.join(parts)}")


def _require_same_truth(
    figures: ImageFigures, first: np.ndarray, other: np.ndarray, name: str, other_name: str
) -> None:
    """Compares the numbers of true segments, TP + FN, of states [N, 4, C]: they come from the truth alone."""
    expected, found = (states[:, 1] + states[:, 3] for states in (first, other))
    images, classes = np.nonzero(expected != found)
    if not len(images):
        return
    image, class_index = int(images[0]), int(classes[0])
    raise DataError(
        f"{other_name}: expected a result measured on the truth of {name}, got one on another truth: image"
        f" {one_line(figures.names[image])} has {counted(int(expected[image, class_index]), 'true segment')} of class"
        f" {figures.classes[class_index].name} there and {int(found[image, class_index]):,} here,"
        f" {counted(len(np.unique(images)), 'image')} of {len(expected):,} differ. Evaluate both on the same truth"
    )
