"""Reports as one HTML page, with its pictures inside."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from deeplab2_kmax.dataset_check.listing import (
    by_kind,
    percent,
    sentence_of_contents,
    sentence_of_labels,
    severity,
    verdict,
)
from deeplab2_kmax.dataset_check.report import Report, describe
from deeplab2_kmax.dataset_check.samples import Sample, as_data_url

_MOST_OF_A_KIND = 50
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2027; max-width: 1160px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.5em; margin-bottom: .2em }
h2 { margin-top: 2em; border-top: 1px solid #e3e5e9; padding-top: .8em }
.verdict { padding: .5em .9em; border-radius: 6px; display: inline-block }
.good { background: #e4f4e6 }
.bad { background: #fbe3e1 }
/* Where a long class name makes a table wider than a narrow screen, the table is scrolled, not the page. */
.table { overflow-x: auto }
table { border-collapse: collapse }
th, td { padding: .15em .9em .15em 0; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
td.name { position: relative; padding-left: 1.4em }
.swatch { position: absolute; left: 0; top: .4em; width: 1em; height: 1em; border-radius: 3px }
.bar { display: inline-block; height: .6em; border-radius: 2px; width: calc(200px * var(--share)) }
.error b { color: #b3261e }
.warning b { color: #8a5a00 }
h2, p, li { overflow-wrap: anywhere }
.samples { display: flex; flex-wrap: wrap; gap: 14px }
figure { margin: 0; max-width: 100% }
figure img { border-radius: 4px; display: block; max-width: 100%; height: auto }
figcaption { color: #69707d; font-size: 12px; max-width: 540px; overflow-wrap: anywhere }
.faulty figcaption { color: #b3261e }
/* On a phone the figures of the table have the room. */
@media (max-width: 640px) {
body { margin: 1em auto }
ul { padding-left: 1.2em }
table { font-size: 13px }
th, td { padding-right: .6em }
.bar { width: calc(24px * var(--share)) }
}
"""


def html_page(reports: Sequence[Report], samples: Sequence[Sequence[Sample]]) -> str:
    """The page that shows the report of each split, and for each split its samples."""
    good = all(report.can_train for report in reports)
    body = [
        "<h1>Data set check</h1>",
        f'<p class="verdict {"good" if good else "bad"}">{html.escape(verdict(reports))}</p>',
    ]
    for report, pictures in zip(reports, samples):
        body += [*_section(report), *_figures(pictures)]
    # Without the viewport, a phone lays the page out for a wide screen and shows it shrunk.
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{viewport}<title>Data set check</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _section(report: Report) -> Iterator[str]:
    """The content and the faults of a split."""
    yield f"<h2>{html.escape(report.title)}</h2><p>{html.escape(sentence_of_contents(report))}.</p>"
    if report.labelled:
        yield f"<p>{html.escape(sentence_of_labels(report))}.</p>"
    for kind, faults in by_kind(report).items():
        items = "".join(f"<li>{html.escape(fault.text)}</li>" for fault in faults[:_MOST_OF_A_KIND])
        more = f"<li>... and {len(faults) - _MOST_OF_A_KIND} more</li>" if len(faults) > _MOST_OF_A_KIND else ""
        heading = f"<b>{severity(kind)}</b>: {html.escape(kind.value)} ({len(faults)})"
        yield f'<div class="{severity(kind)}">{heading}<ul>{items}{more}</ul></div>'
    if report.labelled:
        yield from _classes(report)


def _classes(report: Report) -> Iterator[str]:
    """The table of the classes, with a bar for the pixels of each."""
    yield (
        '<div class="table"><table><tr><th>class</th><th class="n">id</th><th>kind</th><th class="n">images</th>'
        '<th class="n">segments</th><th class="n">pixels</th><th></th></tr>'
    )
    largest = max(count.pixels for count in report.classes.values()) or 1
    for c in report.descriptor.classes:
        count = report.classes[c.id]
        color = "#{:02x}{:02x}{:02x}".format(*c.color)
        bar = f"background:{color};--share:{count.pixels / largest:.3f}"
        yield (
            f'<tr><td class="name"><span class="swatch" style="background:{color}"></span>{html.escape(c.name)}</td>'
            f'<td class="n">{c.id}</td><td>{"thing" if c.is_thing else "stuff"}</td><td class="n">{count.images}</td>'
            f'<td class="n">{count.segments}</td><td class="n">{percent(count.pixels, report.pixels)} %</td>'
            f'<td><span class="bar" style="{bar}"></span></td></tr>'
        )
    yield "</table></div>"


def _figures(samples: Sequence[Sample]) -> Iterator[str]:
    """The samples with their captions."""
    if not samples:
        return
    yield "<p>Samples, with labels on the right: void is grey, ids of classes that do not exist are magenta.</p>"
    yield '<div class="samples">'
    for sample in samples:
        height, width = sample.pixels.shape[:2]
        caption = html.escape(describe(sample.place, sample.name))
        name = sample.name or "an image without a name"
        shown = html.escape(f"{name}; to its right the same image, tinted by its label: {sample.contents}")
        yield (
            f'<figure class="{"faulty" if sample.is_faulty else "sound"}"><img width="{width}" height="{height}"'
            f' alt="{shown}" src="{as_data_url(sample.pixels)}"><figcaption>{caption}</figcaption></figure>'
        )
    yield "</div>"
