"""What is told of the figures: two tables within 80 columns, a CSV file and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deeplab2_kmax.cli.inference_benchmark.measuring import DECODE, NETWORK, POSTPROCESSING, STAGES, WHOLE, Row
from deeplab2_kmax.cli.inference_benchmark.models import Size, Source
from deeplab2_kmax.wording import counted, wrapped

# Widths of the columns that both tables begin with, and the titles of the others; each has a blank before it.
_KEYS = "{:>9} {:>5} {:>5}"
_SPEED = _KEYS + " {:>11}" * 4 + " {:>8}"
_START = _KEYS + " {:>10} {:>10} {:>9} {:>10} {:>8} {:>6}"
_NONE = "-"
_COLORS = {DECODE: "#d9a441", NETWORK: "#3b6ea8", POSTPROCESSING: "#6aa37a", WHOLE: "#9aa0a8"}


def size_text(size: Size) -> str:
    """ "641", or "1025x2049" where height and width differ."""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def header(facts: dict[str, str], sources: Sequence[tuple[str, Source]]) -> str:
    """The machine, and which letter stands for which model."""
    lines = [wrapped(text, prefix=f"{name:<12}") for name, text in facts.items()]
    for label, source in sources:
        precision = source.config().model_options.precision or "float32"
        lines.append(wrapped(f"{source.name} ({precision})", prefix=f"{'model ' + label:<12}"))
    return "\n".join(lines)


def speed_titles(rounds: int) -> str:
    """What stands above the lines of `speed_line`."""
    text = (
        f"Milliseconds for a batch: the median of {counted(rounds, 'turn')}, and half the range of its middle half in"
        " per cent. The whole goes from picture files to panoptic maps with their lists of segments."
    )
    return f"\n{wrapped(text)}\n\n" + _SPEED.format(
        "size", "batch", "model", "decode", "network", "post-proc.", "whole", "images/s"
    )


def speed_line(row: Row) -> str:
    """The times of one model at one size and batch."""
    return _SPEED.format(*_keys(row), *(_time(row, stage) for stage in STAGES), _digits(row.images_per_second))


def start_table(rows: Sequence[Row]) -> str:
    """First calls, cold starts, memory, and how much of the machine the networks use."""
    several = len({row.label for row in rows}) > 1
    limits = {row.precision: row.limit for row in rows}
    text = (
        "First call and cold start (from the start of a process to its first maps) are seconds, memory is the peak of"
        ' that process. Multiply-adds are those of the network for one picture; "of limit" is their rate as a share'
        " of that of the largest matrix products, "
        + ", ".join(f"{limit / 1e9:.0f} GFLOP/s in {precision}" for precision, limit in limits.items())
        + " (a multiply-add is 2 FLOP)."
    )
    titles = (
        "first call",
        "cold start",
        "memory GB",
        "G mul-adds",
        "of limit",
        f"vs {rows[0].label}" if several else "",
    )
    lines = [f"\n{wrapped(text)}\n", _START.format("size", "batch", "model", *titles)]
    for row in rows:
        adds, memory = row.multiply_adds, row.cold("memory")
        lines.append(
            _START.format(
                *_keys(row),
                _number(row.cold("first_call")),
                _number(row.cold("total")),
                _number(memory and memory / 1e9),
                _number(adds and adds / 1e9),
                _NONE if row.share_of_limit is None else f"{row.share_of_limit:.0%}",
                f"{row.speedup:.2f}x" if several else "",
            )
        )
    return "\n".join(line.rstrip(" ") for line in lines)


def as_csv(rows: Sequence[Row], facts: dict[str, str]) -> str:
    """One line for each model, size and batch; times in seconds, memory in bytes, and what is not known left empty."""
    stream = io.StringIO()
    writer: csv.DictWriter | None = None
    for row in rows:
        values: dict[str, object] = {
            "model": row.name,
            "precision": row.precision,
            "height": row.size[0],
            "width": row.size[1],
            "batch": row.batch,
            "turns": len(row.times[WHOLE]),
        }
        for stage in STAGES:
            name = stage.replace("-", "_")
            values[f"{name}_s"], values[f"{name}_spread_s"] = row.median(stage), row.spread(stage)
        values.update(
            images_per_s=row.images_per_second,
            speedup=row.speedup,
            first_call_s=row.cold("first_call"),
            cold_start_s=row.cold("total"),
            peak_memory_bytes=row.cold("memory"),
            multiply_adds=row.multiply_adds,
            limit_flop_per_s=row.limit,
            share_of_limit=row.share_of_limit,
            **facts,
        )
        if writer is None:
            writer = csv.DictWriter(stream, list(values), lineterminator="\n")
            writer.writeheader()
        writer.writerow(values)
    return stream.getvalue()


@matplotlib.style.context("default")
def as_plot(rows: Sequence[Row], facts: dict[str, str]) -> bytes:
    """A PNG with a bar for each model, size and batch: milliseconds of one picture, stage by stage."""
    figure = Figure(figsize=(9, 1.9 + 0.42 * len(rows)), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    drawn = set()
    for position, row in enumerate(rows):
        stages = [stage for stage in (DECODE, NETWORK, POSTPROCESSING) if NETWORK in row.times] or [WHOLE]
        left = 0.0
        for stage in stages:
            width = 1000 * (row.median(stage) or 0.0) / row.batch
            label = None if stage in drawn else stage
            axes.barh(position, width, 0.7, left, color=_COLORS[stage], label=label)
            drawn.add(stage)
            left += width
        axes.text(left, position, f" {_digits(row.images_per_second)} images/s", va="center", fontsize=9)
    names = [f"{size_text(row.size)}, batch {row.batch}, {row.label}" for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds a picture")
    axes.spines[["top", "right"]].set_visible(False)
    models = [f"{label}: {name}" for label, name in {row.label: row.name for row in rows}.items()]
    machine = f"{facts['processor']}; TensorFlow {facts['tensorflow']}"
    # parse_math: a path may hold dollar signs, which matplotlib would take for formulas.
    figure.suptitle("\n".join([*models, machine]), fontsize=9, x=0.01, ha="left", parse_math=False)
    figure.legend(loc="outside lower right", ncols=len(drawn), fontsize=9, frameon=False)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()


def _keys(row: Row) -> tuple[str, str, str]:
    return size_text(row.size), str(row.batch), row.label


def _time(row: Row, stage: str) -> str:
    """The milliseconds of a batch, with their spread."""
    median, spread = row.median(stage), row.spread(stage)
    if median is None or spread is None:
        return _NONE
    return f"{_digits(1000 * median)} ±{spread / median:.0%}"


def _number(value: float | None) -> str:
    return _NONE if value is None else _digits(value)


def _digits(value: float) -> str:
    """A number with three digits that count, or all before the point."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"
