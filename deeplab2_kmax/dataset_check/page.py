"""Reports as one HTML page, with its pictures inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deeplab2_kmax.dataset_check.listing import (
    by_kind,
    percent,
    sentence_of_contents,
    sentence_of_labels,
    severity,
    verdict,
)
from deeplab2_kmax.dataset_check.report import Report, describe
from deeplab2_kmax.dataset_check.samples import Sample
from deeplab2_kmax.pages.pictures import png_url
from deeplab2_kmax.pages.rendering import render

_MOST_OF_A_KIND = 50


def html_page(reports: Sequence[Report], samples: Sequence[Sequence[Sample]]) -> str:
    """The page that shows the report of each split, and for each split its samples."""
    return render(
        "check",
        title="Data set check",
        good=all(report.can_train for report in reports),
        verdict=verdict(reports),
        splits=[_split(report, pictures) for report, pictures in zip(reports, samples)],
    )


def _split(report: Report, samples: Sequence[Sample]) -> dict[str, Any]:
    """The content and the faults of a split."""
    return {
        "title": report.title,
        "contents": sentence_of_contents(report),
        "labels": sentence_of_labels(report) if report.labelled else "",
        "faults": [
            {
                "severity": severity(kind),
                "name": kind.value,
                "count": len(faults),
                "shown": [fault.text for fault in faults[:_MOST_OF_A_KIND]],
                "more": max(0, len(faults) - _MOST_OF_A_KIND),
            }
            for kind, faults in by_kind(report).items()
        ],
        "classes": _classes(report) if report.labelled else [],
        "samples": [_sample(sample) for sample in samples],
    }


def _classes(report: Report) -> list[dict[str, Any]]:
    """The rows of the table of classes, with the length of a bar for the pixels of each."""
    largest = max(count.pixels for count in report.classes.values()) or 1
    rows = []
    for c in report.descriptor.classes:
        count = report.classes[c.id]
        rows.append(
            {
                "name": c.name,
                "color": c.color,
                "id": c.id,
                "is_thing": c.is_thing,
                "images": count.images,
                "segments": count.segments,
                "pixels": count.pixels,
                "percent": percent(count.pixels, report.pixels),
                "share": count.pixels / largest,
            }
        )
    return rows


def _sample(sample: Sample) -> dict[str, Any]:
    height, width = sample.pixels.shape[:2]
    name = sample.name or "an image without a name"
    return {
        "is_faulty": sample.is_faulty,
        "width": width,
        "height": height,
        "url": png_url(sample.pixels),
        "alt": f"{name}; to its right the same image, tinted by its label: {sample.contents}",
        "caption": describe(sample.place, sample.name),
    }
