"""The page of a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab2_kmax.evaluation.panoptic_quality import Categories
from deeplab2_kmax.pages.charts import Chart, line_chart
from deeplab2_kmax.pages.rendering import render
from deeplab2_kmax.results.pictures import COLORS, errors_in_words, panels
from deeplab2_kmax.results.report_data import BINS, Judged, ReportData
from deeplab2_kmax.results.segment_errors import Kind
from deeplab2_kmax.wording import counted

# With more classes, a matrix is too large to be read; the most frequent confusions are listed instead.
_LARGEST_MATRIX = 20
_MOST_PAIRS = 25
_MOST_FINDS = 4


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What PQ is where one threshold has other values.

    Attributes:
        field: below `evaluator_options`.
        present: the config's value.
        values: (value, PQ 0..1), ascending.
    """

    field: str
    present: float
    values: list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class About:
    """What a report is about.

    Attributes:
        title: of the page.
        subtitle: such as the checkpoint and the data.
        command: that made it.
        all_slots: how many mask slots the model has; 0: it is not known.
        sweeps: of thresholds.
        sweep_images: how many images these are measured on.
    """

    title: str
    subtitle: str
    command: str
    all_slots: int = 0
    sweeps: Sequence[Sweep] = ()
    sweep_images: int = 0


def report_page(data: ReportData, about: About, picture_of: Callable[[Judged], np.ndarray | None]) -> str:
    """The page, HTML, with everything inside.

    Args:
        data: what it says.
        about: what it is about.
        picture_of: reads an image, uint8 RGB [h, w, 3]; None where there is none.
    """
    quality, classes = data.quality(), data.categories.classes
    calibration = _calibration(data)
    true = quality.tp + quality.fn
    matrix, pairs = _confusion(data)
    names = [c.name for c in classes]
    values: dict[str, Any] = {
        "title": about.title,
        "subtitle": f"{about.subtitle} \N{MIDDLE DOT} {counted(data.images, 'image')}",
        "command": about.command,
        "headline": [(name, getattr(quality, name)) for name in ("all", "things", "stuff")],
        "kinds": [(kind.value, COLORS[kind], data.errors[kind]) for kind in Kind],
        "right": f"{int(quality.tp.sum()):,}",
        "true_segments": f"{int(true.sum()):,}",
        "classes": _class_rows(data),
        "worst": _pictures(data.worst(), data.categories, picture_of),
        "best": _pictures(data.best(), data.categories, picture_of),
        "confused": [(names[a], names[b], n) for (a, b), n in data.confused.most_common(_MOST_PAIRS)],
        "matrix": matrix,
        "pixel_pairs": pairs,
        "grouped": [("By the area of a segment", data.sizes()), ("By the number of true things", data.crowding())],
        "slots": _slots(data),
        "used_slots": len(data.slots),
        "all_slots": about.all_slots,
        "calibration": calibration,
        "thresholds": [_sweep_chart(sweep) for sweep in about.sweeps],
        "threshold_images": about.sweep_images,
    }
    values["sections"] = _sections(values)
    return render("report", **values)


def _sections(values: dict[str, Any]) -> list[tuple[str, str]]:
    """(anchor, text) of the parts that the page has."""
    parts = [
        ("errors", "errors", True),
        ("classes", "classes", True),
        ("worst", "worst images", values["worst"]),
        ("best", "best images", values["best"]),
        ("confusion", "confusion", True),
        ("size", "size and crowding", True),
        ("slots", "mask slots", values["slots"]),
        ("calibration", "calibration", values["calibration"]),
        ("thresholds", "thresholds", values["thresholds"]),
    ]
    return [(anchor, text) for anchor, text, is_there in parts if is_there]


def _class_rows(data: ReportData) -> list[dict[str, Any]]:
    """The classes that occur, the worst first."""
    quality = data.quality()
    rows = [
        {
            "name": c.name,
            "color": c.color,
            "is_thing": c.is_thing,
            "pq": float(quality.pq[i]),
            "sq": float(quality.sq[i]) if quality.tp[i] else None,
            "rq": float(quality.rq[i]),
            "true": int(quality.tp[i] + quality.fn[i]),
            "found": int(quality.tp[i]),
            "errors": [data.class_errors[i][kind] for kind in Kind],
        }
        for i, c in enumerate(data.categories.classes)
        if quality.occurs[i]
    ]
    return sorted(rows, key=lambda row: row["pq"])


def _pictures(
    judged: Sequence[Judged], categories: Categories, picture_of: Callable[[Judged], np.ndarray | None]
) -> list[dict[str, Any]]:
    return [
        {
            "name": each.image.name,
            "text": f"PQ {100 * each.quality:.1f}; errors: {errors_in_words(each)}",
            "panels": panels(each, categories, picture_of(each)),
        }
        for each in judged
    ]


def _confusion(data: ReportData) -> tuple[dict[str, Any] | None, list[tuple[str, str, float, float]]]:
    """Of few classes the matrix of pixels, of many the most frequent confusions."""
    names = [*(c.name for c in data.categories.classes), "void"]
    # What is void in truth may be called anything.
    confusion = data.confusion[:-1].astype(float)
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    occurs = np.flatnonzero(confusion.sum(1))
    if len(data.categories.classes) <= _LARGEST_MATRIX:
        columns = [
            *np.flatnonzero(confusion[:, :-1].sum(0) + np.isin(np.arange(len(names) - 1), occurs)),
            len(names) - 1,
        ]
        rows = [(names[i], shares[i, columns].tolist()) for i in occurs]
        return {"columns": [names[i] for i in columns], "rows": rows}, []
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    total = max(wrong.sum(), 1)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    places = [divmod(int(place), wrong.shape[1]) for place in largest]
    return None, [(names[i], names[j], shares[i, j], wrong[i, j] / total) for i, j in places if wrong[i, j]]


def _slots(data: ReportData) -> list[dict[str, Any]]:
    """The slots that found something, the busiest first."""
    classes = data.categories.classes
    rows = []
    for number, use in sorted(data.slots.items(), key=lambda item: -sum(item[1].classes.values())):
        segments = sum(use.classes.values())
        finds = [(classes[i].color, classes[i].name, n / segments) for i, n in use.classes.most_common(_MOST_FINDS)]
        row = {"number": number, "segments": segments, "right": use.right / segments, "classes": len(use.classes)}
        rows.append({**row, "finds": finds})
    return rows


def _calibration(data: ReportData) -> dict[str, Any] | None:
    error = data.calibration_error()
    if error is None:
        return None
    rows, points = [], []
    for number, (count, confidence, right) in enumerate(data.calibration.T.tolist()):
        if count:
            mean, share = confidence / count, right / count
            rows.append((f"{number / BINS:.1f} to {(number + 1) / BINS:.1f}", int(count), mean, share))
            points.append((mean, share))
    told = "; ".join(f"of confidence {mean:.2f}, {100 * share:.0f} % are right" for mean, share in points)
    chart = line_chart("Segments that are right", "confidence", told, points, unit_square=True)
    return {"error": error, "chart": chart, "rows": rows}


def _sweep_chart(sweep: Sweep) -> Chart:
    field = sweep.field.rsplit(".", 1)[-1]
    best = max(sweep.values, key=lambda point: point[1])
    told = f"the best of these is {best[0]:.3g} with PQ {100 * best[1]:.2f}; the config has {sweep.present:.3g}"
    points = [(value, 100 * pq) for value, pq in sweep.values]
    return line_chart(field, "value", told, points, mark=(sweep.present, "config"))
