"""Results as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deeplab2_kmax import files
from deeplab2_kmax.evaluation.mean_iou import MeanIoUResult
from deeplab2_kmax.evaluation.metric import MetricResult, percent
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQualityResult
from deeplab2_kmax.wording import counted, shortened, wrapped

# Leaves room for seven columns of figures in 80 columns.
_NAME_WIDTH = 27


def quality_table(
    quality: PanopticQualityResult,
    mean_iou: MeanIoUResult | None = None,
    per_class: bool = False,
    others: Mapping[str, MetricResult] | None = None,
) -> str:
    """A table of at most 80 columns, qualities in percent.

    Args:
        quality: panoptic quality of a data set.
        mean_iou: adds a line with the mean IoU, and with `per_class` a column with that of each class. Where it is the
            mean of another number of classes than panoptic quality, a foot line says why.
        per_class: adds a line for each class that occurs.
        others: results of further metrics; each adds its part.

    Returns:
        Lines joined by newlines, with none at the end.
    """
    lines = _heading("", "PQ", "SQ", "RQ", "classes")
    for name in ("All", "Things", "Stuff"):
        averages = getattr(quality, name.lower())
        lines.append(_row(name, *map(percent, averages[:3]), str(averages.classes)))
    if per_class:
        lines += ["", *_class_lines(quality, mean_iou)]
    if mean_iou is not None:
        of_pixels = int(mean_iou.occurs.sum())
        lines += ["", _row("mean IoU", percent(mean_iou.mean), "", "", str(of_pixels))]
        lines += [_row("frequency-weighted IoU", percent(mean_iou.frequency_weighted), "", "", str(of_pixels))]
    for result in (others or {}).values():
        headings, rows = result.as_block()
        lines += ["", *_heading(*headings), *(_row(*cells) for cells in rows)]
    if mean_iou is not None:
        of_pixels, of_segments = int(mean_iou.occurs.sum()), quality.all.classes
        if of_pixels != of_segments:
            lines += ["", _why_classes_differ(of_segments, of_pixels)]
    return "\n".join(lines)


def _why_classes_differ(of_segments: int, of_pixels: int) -> str:
    """Why mean IoU is the mean of another number of classes than panoptic quality."""
    return wrapped(
        f"PQ is the mean of {counted(of_segments, 'class', 'classes')}: those with a segment in the labels or the"
        f" panoptic maps. mean IoU is the mean of {counted(of_pixels, 'class', 'classes')}: those with a pixel in the"
        " labels or the semantic maps, which name a class even where the panoptic maps are void for lack of confidence."
    )


def _class_lines(quality: PanopticQualityResult, mean_iou: MeanIoUResult | None) -> list[str]:
    """The part of the table that has a line for each class."""
    iou = {} if mean_iou is None else mean_iou.as_dict()["per_class"]
    lines = _heading("class", "PQ", "SQ", "RQ", "TP", "FP", "FN", *(["IoU"] if iou else []))
    for name, values in quality.as_dict()["per_class"].items():
        cells = [percent(values[key]) for key in ("pq", "sq", "rq")] + [str(values[key]) for key in ("tp", "fp", "fn")]
        # Panoptic and semantic maps are predicted separately, so a class may occur in the former only.
        lines.append(_row(name, *cells, *([percent(iou[name]) if name in iou else "-"] if iou else [])))
    return lines


def _row(name: str, *cells: str) -> str:
    """A line of the table: a name, cut to its column, and cells aligned to the right."""
    name = shortened(name, _NAME_WIDTH - 1)
    # The last columns are one narrower than the first four, so that all seven fit into 80.
    shown = "".join(f"{cell:>{8 if number < 4 else 7}}" for number, cell in enumerate(cells))
    return f"{name:<{_NAME_WIDTH}}{shown}".rstrip()


def _heading(name: str, *cells: str) -> list[str]:
    names = _row(name, *cells)
    return [names, "-" * len(names)]


def result_path(folder: str, step: int, images: int, settings: str) -> str:
    """Where the results of a checkpoint go, such that they replace none that say more.

    Args:
        folder: where results are, possibly remote.
        step: that of the checkpoint.
        images: how many images were evaluated.
        settings: identifies what the results depend on besides the checkpoint.

    Returns:
        `metrics-<step>.json`; or, if that holds results of more images, or of as many under other settings, a name
        that tells both.
    """
    usual = files.join(folder, f"metrics-{step}.json")
    try:
        before = files.read_json(usual)
        is_replaced = before["images"] < images or (before["images"] == images and before["settings"] == settings)
    # There is none yet, or it is not whole, or of a version that did not tell.
    except (OSError, ValueError, KeyError, TypeError):
        is_replaced = True
    return usual if is_replaced else files.join(folder, f"metrics-{step}-{images}-images-{settings}.json")


def quality_json(
    quality: PanopticQualityResult,
    mean_iou: MeanIoUResult | None = None,
    others: Mapping[str, MetricResult] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Results as plain values for a JSON file.

    Args:
        quality: panoptic quality of a data set.
        mean_iou: its mean IoU, or None.
        others: results of further metrics, by the names of their entries.
        more: further entries, put first and unchanged.

    Returns:
        `more`, "dataset" (its name), "panoptic_quality" and, if given, "mean_iou" and `others`.
    """
    content = {**more, "dataset": quality.descriptor.name, "panoptic_quality": quality.as_dict()}
    if mean_iou is not None:
        content["mean_iou"] = mean_iou.as_dict()
    content.update({name: result.as_dict() for name, result in (others or {}).items()})
    return content
