"""Compares results on the same images: which figures differ, and whether these images can show that they do."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deeplab2_kmax.errors import UserError
from deeplab2_kmax.evaluation.bootstrap import LEAST_DRAWS, LEAST_IMAGES, Difference, PairedBootstrap
from deeplab2_kmax.evaluation.panoptic_quality import Categories, PanopticQualityResult
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.results.result_files import aligned_states, find_figures
from deeplab2_kmax.wording import counted, shortened, wrapped

NOT_SHOWN = "no difference that this set can show"
_NAME_WIDTH = 20
# "+100.00 to +100.00", and two blanks before it.
_INTERVAL_WIDTH = 20
_LEVEL = 0.95


class Row(NamedTuple):
    """One figure of two results.

    Attributes:
        name: "All", "Things", "Stuff" or that of a class.
        first: the figure of the first result, 0..1; NaN where it has none.
        second: that of the other.
        difference: second minus first, with its interval.
    """

    name: str
    first: float
    second: float
    difference: Difference


@dataclasses.dataclass(frozen=True)
class Pairing:
    """Two results side by side.

    Attributes:
        letter: what the second is called; the first is A.
        averages: the rows of all classes, things and stuff.
        classes: a row for each class that occurs in one of them.
    """

    letter: str
    averages: list[Row]
    classes: list[Row]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Several results, each beside the first.

    Attributes:
        paths: the files of the figures, A first.
        names: of the images.
        states: float64 [R, N, 4, C], see `PanopticQuality.state`.
        categories: the classes.
        pairings: one for each result after the first.
        draws: how often images were drawn for the intervals.
    """

    paths: list[str]
    names: list[str]
    states: np.ndarray
    categories: Categories
    pairings: list[Pairing]
    draws: int

    def report(self) -> str:
        """Tables of at most 80 columns; PQ in percent."""
        width = max(len(path) for path in self.paths)
        lines = [f"{letter_of(number)}  {path:<{width}}" for number, path in enumerate(self.paths)]
        lines = [*(line.rstrip() for line in lines), f"   {counted(len(self.names), 'image')}"]
        for pairing in self.pairings:
            lines += ["", *_heading("PQ", pairing.letter), *map(_line, pairing.averages)]
            if pairing.averages and not pairing.averages[0].difference.is_shown:
                lines.append(f"{pairing.letter} and A: {NOT_SHOWN}")
            lines += ["", *_heading("class", pairing.letter), *map(_line, pairing.classes)]
        lines += ["", wrapped(self.foot())]
        return "\n".join(lines)

    def foot(self) -> str:
        """What the intervals mean."""
        classes = max(len(pairing.classes) for pairing in self.pairings)
        expected = classes * (1 - _LEVEL)
        text = (
            f"interval: {100 * _LEVEL:.0f} % of {self.draws:,} times that the images were drawn anew, the same ones for"
            f" both sides; where it holds zero there is {NOT_SHOWN}."
            f" What fewer than {LEAST_IMAGES} images have has no interval, and cannot be shown."
        )
        if classes > 1:
            text += (
                f" Of {counted(classes, 'class', 'classes')} whose quality is equal, {expected:.2g} would show a"
                " difference by chance, on average."
            )
        return f"{text} What is shown is true of these checkpoints: another seed of the same training differs, too."

    def as_dict(self) -> dict[str, Any]:
        """The comparison for a JSON file; qualities 0..1, and null where there is none."""
        return {
            "images": len(self.names),
            "draws": self.draws,
            "level": _LEVEL,
            "results": self.paths,
            "differences_to_the_first": [
                {
                    "result": path,
                    **{row.name.lower(): _row_dict(row) for row in pairing.averages},
                    "per_class": {row.name: _row_dict(row) for row in pairing.classes},
                }
                for path, pairing in zip(self.paths[1:], self.pairings)
            ],
        }


def compare(paths: Sequence[str], draws: int = 2000, seed: int = 0) -> Comparison:
    """Compares results with the first of them.

    Args:
        paths: at least two, see `find_figures`.
        draws: how often the images are drawn for the intervals; at least `LEAST_DRAWS`.
        seed: of the draws.

    Raises:
        UserError: fewer than two results, or too few draws.
        DataError: there are no figures of images, or they are of different images, classes or truths.
    """
    if draws < LEAST_DRAWS:
        raise UserError(f"--draws: expected a number from {LEAST_DRAWS}, or intervals mean nothing; got {draws}")
    if len(paths) < 2:
        raise UserError(f"compare: expected at least two results, got {len(paths)}; name the second one, too")
    found = [find_figures(os.fspath(path)) for path in paths]
    results = [ImageFigures.load(path) for path in found]
    states = aligned_states(results, found)
    categories = Categories(results[0].dataset, results[0].classes)
    pairings = [
        _pairing(letter_of(number), states[0], states[number], categories, draws, seed)
        for number in range(1, len(states))
    ]
    return Comparison(found, results[0].names, states, categories, pairings, draws)


def letter_of(number: int) -> str:
    """A for the first result; after Z come R27, R28, ..."""
    return chr(ord("A") + number) if number < 26 else f"R{number + 1}"


def image_qualities(states: np.ndarray) -> np.ndarray:
    """One figure for each image, 0..1: the PQ of its segments with all classes taken together; NaN without segments.

    Args:
        states: float64 [..., 4, C].

    Returns:
        float64 [...].
    """
    iou, tp, fp, fn = np.moveaxis(states.sum(-1), -1, 0)
    segments = tp + fp / 2 + fn / 2
    return np.where(segments > 0, iou / np.maximum(segments, 0.5), np.nan)


def _pairing(
    letter: str, first: np.ndarray, second: np.ndarray, categories: Categories, draws: int, seed: int
) -> Pairing:
    bootstrap = PairedBootstrap(first, second, draws=draws, level=_LEVEL, seed=seed)
    one, other = (PanopticQualityResult(categories, *side.sum(0)) for side in (first, second))
    is_thing = np.array([c.is_thing for c in categories.classes])
    averages = []
    for name, chosen in (("All", np.ones_like(is_thing)), ("Things", is_thing), ("Stuff", ~is_thing)):
        mean, other_mean = (getattr(side, name.lower()) for side in (one, other))
        if mean.classes or other_mean.classes:
            averages.append(Row(name, mean.pq, other_mean.pq, bootstrap.of_mean("pq", chosen)))
    differences = bootstrap.of_classes("pq")
    of_one, of_other = (np.where(side.occurs, side.pq, np.nan).tolist() for side in (one, other))
    classes = [
        Row(c.name, of_one[i], of_other[i], differences[i])
        for i, c in enumerate(categories.classes)
        if one.occurs[i] or other.occurs[i]
    ]
    return Pairing(letter, averages, classes)


def _heading(name: str, letter: str) -> list[str]:
    line = f"{name:<{_NAME_WIDTH}}{'A':>8}{letter:>8}{f'{letter} - A':>9}{'interval':>{_INTERVAL_WIDTH}}"
    return [line, "-" * 80]


def _line(row: Row) -> str:
    """A row of the table; who reads it in a terminal sees at once which differences are shown."""
    name = shortened(row.name, _NAME_WIDTH - 1)
    first, second = (f"{100 * value:.2f}" if math.isfinite(value) else "-" for value in (row.first, row.second))
    difference = row.difference
    if not math.isfinite(difference.value):
        return f"{name:<{_NAME_WIDTH}}{first:>8}{second:>8}{'-':>9}"
    interval = interval_text(difference) or "-"
    verdict = ("better" if difference.value > 0 else "worse") if difference.is_shown else "not shown"
    figures = f"{first:>8}{second:>8}{100 * difference.value:>+9.2f}"
    return f"{name:<{_NAME_WIDTH}}{figures}{interval:>{_INTERVAL_WIDTH}}  {verdict}"


def interval_text(difference: Difference) -> str:
    """Such as "+0.34 to +2.51", in percent; nothing where there is no interval."""
    if not math.isfinite(difference.low):
        return ""
    return f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}"


def _row_dict(row: Row) -> dict[str, Any]:
    difference = row.difference
    values = {
        "pq_of_the_first": row.first,
        "pq": row.second,
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
    }
    # JSON knows no NaN.
    plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return {**plain, "is_shown": difference.is_shown}
