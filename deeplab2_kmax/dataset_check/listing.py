"""A report as lines of text for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from deeplab2_kmax.dataset_check.faults import Fault, FaultKind
from deeplab2_kmax.dataset_check.report import Report
from deeplab2_kmax.wording import counted, shortened, wrapped

# How many faults of one kind are shown; where all records have a fault, there is one for each record.
_MOST_OF_A_KIND = 5
# Leaves room for the other columns of the table in 80 columns.
_LONGEST_NAME = 33


def report_lines(report: Report, most_of_a_kind: int = _MOST_OF_A_KIND) -> Iterator[str]:
    """The content of a split, class by class, and then its faults, up to `most_of_a_kind` of each kind.

    Texts have several lines where they would be wider than a terminal.
    """
    yield wrapped(f"{report.title}: {sentence_of_contents(report)}", indent="  ")
    if report.labelled:
        yield wrapped(sentence_of_labels(report), prefix="  ")
        yield ""
        names = {c.id: shortened(c.name, _LONGEST_NAME) for c in report.descriptor.classes}
        width = max(len("class"), *map(len, names.values()))
        yield f"  {'class':{width}}  {'id':>5}  kind   {'images':>8}  {'segments':>9}  {'pixels':>8}"
        for c in report.descriptor.classes:
            count = report.classes[c.id]
            share = f"{percent(count.pixels, report.pixels)} %"
            start = f"  {names[c.id]:{width}}  {c.id:>5}  {'thing' if c.is_thing else 'stuff'}"
            yield f"{start}  {count.images:>8}  {count.segments:>9}  {share:>8}"
    for kind, faults in by_kind(report).items():
        yield ""
        yield wrapped(f"  {severity(kind)}: {kind.value} ({len(faults)})")
        for fault in faults[:most_of_a_kind]:
            yield wrapped(f"    {fault.text}")
        if len(faults) > most_of_a_kind:
            yield f"    ... and {len(faults) - most_of_a_kind} more of this kind"


def sentence_of_contents(report: Report) -> str:
    """How many records and files there are."""
    amount = f"{counted(report.records, 'record')} in {counted(len(report.shards), 'file')}"
    labels = "all labelled" if report.labelled == report.records else f"{report.labelled:,} of them with a label"
    return f"{amount}, {labels}, data set {report.descriptor.name}"


def sentence_of_labels(report: Report) -> str:
    """The shares of void and crowd, the number of things in an image, and the room that instance ids have left."""
    descriptor = report.descriptor
    mean = statistics.fmean(report.things)
    return (
        f"{percent(report.void, report.pixels)} % of the pixels are void, {percent(report.crowd, report.pixels)} %"
        f" crowd; an image has {min(report.things)} to {counted(max(report.things), 'thing')} ({mean:.1f} on average);"
        f" the largest instance id is {report.largest_instance}, of {descriptor.label_divisor - 1} that label_divisor"
        f" {descriptor.label_divisor} allows"
    )


def verdict(reports: Sequence[Report]) -> str:
    """Whether training can start."""
    faults = [fault for report in reports for fault in report.faults]
    stopping = sum(fault.kind.stops_training for fault in faults)
    tolerable = len(faults) - stopping
    if stopping:
        return f"training cannot start: {counted(stopping, 'error')}, {counted(tolerable, 'warning')}"
    records = counted(sum(report.records for report in reports), "record")
    return f"training can start: no errors, {counted(tolerable, 'warning')} in {records}"


def by_kind(report: Report) -> dict[FaultKind, list[Fault]]:
    """The faults by kind, those that stop training first."""
    kinds = sorted(FaultKind, key=lambda kind: not kind.stops_training)
    found = {kind: [fault for fault in report.faults if fault.kind is kind] for kind in kinds}
    return {kind: faults for kind, faults in found.items() if faults}


def severity(kind: FaultKind) -> str:
    """What a fault of this kind is called: "error" if it stops training, else "warning"."""
    return "error" if kind.stops_training else "warning"


def percent(part: int, whole: int) -> str:
    """A share in percent, as text with as many decimals as small shares need."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.1f}" if share >= 0.1 or not part else f"{share:.2g}"
