"""The page of a comparison: the figures with their intervals, and images that one side segments better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.evaluation.scoring.score import FilePairs, Options, read_pairs
from deeplab2_kmax.pages.rendering import render
from deeplab2_kmax.results.comparison import (
    NOT_SHOWN,
    Comparison,
    Pairing,
    Row,
    image_qualities,
    interval_text,
    letter_of,
)
from deeplab2_kmax.results.from_files import Photos, by_image_key, key_of, report_image
from deeplab2_kmax.results.pictures import COLORS, compared_panels, errors_in_words
from deeplab2_kmax.results.report_data import judge
from deeplab2_kmax.results.segment_errors import Kind
from deeplab2_kmax.wording import one_line

# Figures and maps are of the same pixels, so more than rounding is another map.
_ALIKE = 5e-4


class Pictures:
    """Reads the maps of the images of a comparison.

    Args:
        truth: see `score_files`.
        predictions: one for each result, in their order.
        options: how to read them.
        image_folder: the images themselves; see `files_report`.

    Raises:
        DataError, UserError: as `score_files`.
    """

    def __init__(self, truth: str, predictions: Sequence[str], options: Options, image_folder: str | None) -> None:
        self.results: list[FilePairs] = [read_pairs(truth, prediction, options) for prediction in predictions]
        self.places = by_image_key(self.results[0])
        self.photos = Photos(image_folder, self.results[0].pairs if self.results else ())

    def of(self, name: str, second: int, qualities: Sequence[float]) -> dict[str, Any]:
        """The pictures of an image, of the first result and of another one.

        Args:
            name: of the image.
            second: the number of the other result.
            qualities: of the image in each result, see `image_qualities`.

        Raises:
            DataError: the truth has no such image, a map cannot be read, or it is not the one that was measured.
        """
        if key_of(name) not in self.places:
            raise DataError(
                f"--truth: expected the images that were compared, got none named {name}; name the truth that the"
                " results were measured on"
            )
        number = self.places[key_of(name)]
        categories = self.results[0].categories
        judged = [
            judge(
                report_image(self.results[side].pairs[number], len(categories.classes)), number, len(categories.classes)
            )
            for side in (0, second)
        ]
        letters = (letter_of(0), letter_of(second))
        for letter, each, result in zip(letters, judged, (qualities[0], qualities[second])):
            _require_same_quality(letter, name, each.quality, result)
        texts = [
            f"{letter}: PQ {100 * each.quality:.1f}, errors: {errors_in_words(each)}"
            for letter, each in zip(letters, judged)
        ]
        picture = self.photos.of(self.results[0].pairs[number])
        shown = compared_panels(judged[0], judged[1], letters, categories, picture)
        return {"name": name, "text": "; ".join(texts), "panels": shown}


def comparison_page(comparison: Comparison, command: str, pictures: Pictures | None = None, count: int = 6) -> str:
    """The page, HTML, with everything inside.

    Args:
        comparison: what it says.
        command: that made it.
        pictures: reads the images; None: none are shown.
        count: how many images are shown of each kind.

    Raises:
        UserError: there are pictures of more or fewer results than are compared.
        DataError: see `Pictures.of`.
    """
    if pictures is not None and len(pictures.results) != len(comparison.paths):
        raise UserError(
            f"--prediction: expected one for each of the {len(comparison.paths)} results, in their order; got"
            f" {len(pictures.results)}"
        )
    qualities = image_qualities(comparison.states)
    pairings = []
    for number, pairing in enumerate(comparison.pairings, 1):
        difference = qualities[number] - qualities[0]
        shown = [
            (
                f"Images on which {first} is better than {second}",
                _largest(comparison, sign * difference, number, pictures, count, qualities),
            )
            for first, second, sign in ((letter_of(0), pairing.letter, -1), (pairing.letter, letter_of(0), 1))
        ]
        pairings.append(_pairing(pairing, [each for each in shown if each[1]]))
    return render(
        "comparison",
        title="Comparison",
        command=command,
        panel_columns=3,
        results=[(letter_of(number), path) for number, path in enumerate(comparison.paths)],
        images=len(comparison.names),
        pairings=pairings,
        foot=comparison.foot(),
        kinds=[(kind.value, COLORS[kind]) for kind in Kind] if pictures is not None else [],
    )


def _largest(
    comparison: Comparison,
    difference: np.ndarray,
    second: int,
    pictures: Pictures | None,
    count: int,
    qualities: np.ndarray,
) -> list[dict[str, Any]]:
    """The images with the largest positive difference."""
    if pictures is None:
        return []
    order = np.argsort(-np.nan_to_num(difference, nan=-np.inf), kind="stable")[:count]
    return [
        pictures.of(comparison.names[place], second, qualities[:, place].tolist())
        for place in order.tolist()
        if difference[place] > 0
    ]


def _require_same_quality(letter: str, name: str, of_map: float, of_result: float) -> None:
    """Raises DataError unless a map has the quality that its result gives for this image."""
    if math.isclose(of_map, of_result, abs_tol=_ALIKE) or (math.isnan(of_map) and math.isnan(of_result)):
        return
    raise DataError(
        f"--prediction: the maps of {letter} give PQ {100 * of_map:.2f} on image {one_line(name)}, its result says"
        f" {100 * of_result:.2f}; give one --prediction for each result, in their order, and the --truth that they"
        " were measured on"
    )


def _pairing(pairing: Pairing, shown: list[tuple[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    rows = [*pairing.averages, *pairing.classes]
    ends = [abs(end) for row in rows for end in (row.difference.low, row.difference.high) if math.isfinite(end)]
    widest = max([*ends, 1e-9])
    overall = pairing.averages[0].difference if pairing.averages else None
    verdict, look = NOT_SHOWN, "plain"
    if overall is not None and overall.is_shown:
        verdict = f"{pairing.letter} is {'better' if overall.value > 0 else 'worse'} than A on these images"
        look = "good" if overall.value > 0 else "bad"
    return {
        "letter": pairing.letter,
        "verdict": verdict,
        "look": look,
        "tables": [
            (title, [_row(row, widest) for row in part])
            for title, part in (("PQ", pairing.averages), ("class", pairing.classes))
        ],
        "pictures": shown,
    }


def _row(row: Row, widest: float) -> dict[str, Any]:
    """A row of the table; places on the bar are in percent of its width, zero in the middle."""
    difference = row.difference
    has_interval = math.isfinite(difference.low)

    def place(value: float) -> float:
        return 50 + 50 * value / widest

    return {
        "name": row.name,
        "first": row.first,
        "second": row.second,
        "difference": difference.value if math.isfinite(difference.value) else None,
        "interval": interval_text(difference),
        "verdict": ("better" if difference.value > 0 else "worse") if difference.is_shown else "not shown",
        "left": place(difference.low) if has_interval else None,
        "width": max(0.5, place(difference.high) - place(difference.low)) if has_interval else None,
        "point": place(difference.value) if has_interval else None,
    }
