"""Line charts as places of an SVG, which templates draw."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

_WIDTH, _HEIGHT = 340, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 12, 34
_TICKS = 4
# Of values in percent.
_NARROWEST = 2.0


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart of one line.

    Attributes:
        title: above it.
        x_label: below the horizontal axis.
        summary: what it shows, for those who cannot see it.
        points: (x, y) in pixels.
        x_ticks: (place, text) along the horizontal axis.
        y_ticks: the same of the vertical one.
        mark: where a vertical line stands, in pixels, and its text; None: nowhere.
        diagonal: the ends of a line from corner to corner, (x1, y1, x2, y2); None: there is none.
        width: in pixels.
        height: in pixels.
        left: where the horizontal axis begins.
        right: where it ends.
        top: where the vertical axis ends.
        bottom: where it begins.
    """

    title: str
    x_label: str
    summary: str
    points: list[tuple[float, float]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    mark: tuple[float, str] | None = None
    diagonal: tuple[float, float, float, float] | None = None
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _HEIGHT - _BOTTOM

    @property
    def line(self) -> str:
        """The points as SVG writes them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


def line_chart(
    title: str,
    x_label: str,
    summary: str,
    values: Sequence[tuple[float, float]],
    mark: tuple[float, str] | None = None,
    unit_square: bool = False,
) -> Chart:
    """Lays a chart out.

    Args:
        title: above it.
        x_label: below the horizontal axis.
        summary: what it shows, in words.
        values: (x, y), by ascending x; at least one.
        mark: x of a vertical line, and its text.
        unit_square: whether both axes go from 0 to 1, with a diagonal; else the axes fit the values.
    """
    xs, ys = [x for x, _ in values], [y for _, y in values]
    x_range = (0.0, 1.0) if unit_square else (min(xs), max(xs))
    y_range = (0.0, 1.0) if unit_square else _round_range(min(ys), max(ys))

    def place(value: float, ends: tuple[float, float], start: float, end: float) -> float:
        share = (value - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else 0.5
        return start + share * (end - start)

    def across(x: float) -> float:
        return place(x, x_range, _LEFT, _WIDTH - _RIGHT)

    def up(y: float) -> float:
        return place(y, y_range, _HEIGHT - _BOTTOM, _TOP)

    steps = [step / _TICKS for step in range(_TICKS + 1)]
    x_ticks = [float(step) for step in steps] if unit_square else _round_values(*x_range)
    y_ticks = [y_range[0] + step * (y_range[1] - y_range[0]) for step in steps]
    return Chart(
        title,
        x_label,
        summary,
        [(across(x), up(y)) for x, y in values],
        [(across(x), _text(x, x_range)) for x in dict.fromkeys(x_ticks)],
        [(up(y), _text(y, y_range)) for y in dict.fromkeys(y_ticks)],
        None if mark is None or not x_range[0] <= mark[0] <= x_range[1] else (across(mark[0]), mark[1]),
        (across(0), up(0), across(1), up(1)) if unit_square else None,
    )


def _text(value: float, ends: tuple[float, float]) -> str:
    """A value beside an axis, with as many digits as tell its ticks apart."""
    step = (ends[1] - ends[0]) / _TICKS
    digits = max(0, 1 - math.floor(math.log10(step))) if step > 0 else 2
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _round_values(low: float, high: float) -> list[float]:
    """Round numbers within a range, evenly spaced: two to six of them; of a range of one value that value."""
    if high <= low:
        return [low]
    rough = (high - low) / (_TICKS + 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    # Sums of floats come near a round number, and are not it.
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _round_range(low: float, high: float) -> tuple[float, float]:
    """A range around both whose ends and ticks are round numbers, wide enough that nothing small looks large."""
    span = max(high - low, _NARROWEST)
    step = 10 ** math.floor(math.log10(span / _TICKS))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10, 20) if step * factor * (_TICKS - 1) >= span)
    start = math.floor(low / step) * step
    if start + _TICKS * step < high:
        step *= 2
        start = math.floor(low / step) * step
    return start, start + _TICKS * step
