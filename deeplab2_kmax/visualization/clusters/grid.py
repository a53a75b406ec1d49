"""Lays out the page of clusters for pictures of any shape and any number of layers."""

from __future__ import annotations

import dataclasses
import math

# All lengths are in pixels.
WIDTH, MARGIN = 1600, 48
_GAP = 24
_HEADER = 140
_TABLE_WIDTH, _TABLE_HEIGHT = 400, 310
_TOP_HEIGHT = 500
_SMALLEST_PANEL, _HIGHEST_PANEL, _HIGHEST_ROWS = 262, 485, 900
# Heights of the title above a panel and of the caption below it.
_TITLE, _CAPTION = 34, 30
# Strips that are narrower than the titles above them keep this distance.
_TITLE_WIDTH = 80
_SECTION = 84
_FLOW_HEIGHT, _CHART_HEIGHT = 300, 340

_Point = tuple[int, int]
_Size = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Grid:
    """Places on the page: points are (x, y) from the upper left corner, sizes (height, width), boxes (x, y, w, h).

    Attributes:
        height: of the page.
        top: upper left corners of the photo and of the picture of segments.
        top_size: their size.
        table: upper left corner of the list of clusters, which reaches to the right margin.
        table_height: its height.
        panels: upper left corners of the pictures of the layers.
        panel_size: their size.
        flow: box of the chart of where pixels go.
        changes: box of the chart of how far centers turn.
        paths: box of the chart of which way centers travel.
    """

    height: int
    top: tuple[_Point, _Point]
    top_size: _Size
    table: _Point
    table_height: int
    panels: tuple[_Point, ...]
    panel_size: _Size
    flow: tuple[int, int, int, int]
    changes: tuple[int, int, int, int]
    paths: tuple[int, int, int, int]


def fit_grid(aspect: float, num_panels: int) -> Grid:
    """Lays out the page.

    Args:
        aspect: width / height of the picture.
        num_panels: number of layers, the final masks included.
    """
    top, top_size, table, top_end = _fit_top(aspect)
    panel_size, columns = _fit_panels(aspect, num_panels)
    first = top_end + _SECTION
    across = (WIDTH - 2 * MARGIN + _GAP) / columns
    down = panel_size[0] + _TITLE + _CAPTION + 4
    panels = tuple(
        (round(MARGIN + i % columns * across), first + _TITLE + i // columns * down) for i in range(num_panels)
    )
    y = first + math.ceil(num_panels / columns) * down + _SECTION
    flow = (MARGIN, y, WIDTH - 2 * MARGIN, _FLOW_HEIGHT)
    y += _FLOW_HEIGHT + 30 + _SECTION
    half = (WIDTH - 2 * MARGIN - 2 * _GAP) // 2
    changes = (MARGIN, y, half, _CHART_HEIGHT)
    paths = (WIDTH - MARGIN - half, y, half, _CHART_HEIGHT)
    bottom = y + _CHART_HEIGHT + 30 + MARGIN
    return Grid(bottom, top, top_size, table, top_end - table[1], panels, panel_size, flow, changes, paths)


def _fit_top(aspect: float) -> tuple[tuple[_Point, _Point], _Size, _Point, int]:
    """Places photo and segments beside each other, or one below the other if that makes them larger.

    Returns:
        The corners of both, their size, the corner of the table, and the y at which this part of the page ends.
    """
    room = WIDTH - 2 * MARGIN - _TABLE_WIDTH - 2 * _GAP
    beside = _size(aspect, room / 2, _TOP_HEIGHT)
    below = _size(aspect, room + _GAP, (_TOP_HEIGHT - _TITLE - 12) / 2)
    x, y = MARGIN, _HEADER
    if beside[0] * beside[1] >= below[0] * below[1]:
        size, second = beside, (x + max(beside[1], _TITLE_WIDTH) + _GAP, y)
    else:
        size, second = below, (x, y + below[0] + _TITLE + 12)
    end = max(second[1] + size[0], y + _TABLE_HEIGHT)
    return ((x, y), second), size, (second[0] + max(size[1], _TITLE_WIDTH) + 2 * _GAP, y), end


def _fit_panels(aspect: float, count: int) -> tuple[_Size, int]:
    """The size of a panel, and the number of columns that gives large panels and full rows within a bounded height."""
    room = WIDTH - 2 * MARGIN + _GAP
    best, best_score = (_size(aspect, room - _GAP, _HIGHEST_PANEL), 1), -1.0
    for columns in range(1, min(count, room // (_SMALLEST_PANEL + _GAP)) + 1):
        size = _size(aspect, room / columns - _GAP, _HIGHEST_PANEL)
        rows = math.ceil(count / columns)
        fullness = count / (rows * columns)
        excess = max(1.0, rows * (size[0] + _TITLE + _CAPTION) / _HIGHEST_ROWS)
        # Found by trial: area counts, half-empty last rows count against it, and so does a page that gets too long.
        score = size[0] * size[1] * fullness**4 / excess**3
        if score > best_score:
            best, best_score = (size, columns), score
    return best


def _size(aspect: float, width: float, height: float) -> _Size:
    """The largest (height, width) of that aspect in a box; at least 8 pixels on a side."""
    width = min(width, height * aspect)
    return max(8, round(width / aspect)), max(8, int(width))
