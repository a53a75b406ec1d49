"""Composes the page of clusters: photo and segments, every decoder layer, charts of how the clustering converges."""

from __future__ import annotations

import matplotlib.style
import numpy as np
from PIL import Image

from deeplab2_kmax.visualization.captions import draw_captions, readable_class_name
from deeplab2_kmax.visualization.clusters.assignment_panel import assignment_panel
from deeplab2_kmax.visualization.clusters.charts import column_position, draw_changes, draw_flows, draw_paths
from deeplab2_kmax.visualization.clusters.colors import cluster_colors
from deeplab2_kmax.visualization.clusters.grid import MARGIN, WIDTH, Grid, fit_grid
from deeplab2_kmax.visualization.clusters.layer_views import ClusterViews, LayerView, resample
from deeplab2_kmax.visualization.clusters.numbers import ClusterNumbers
from deeplab2_kmax.visualization.clusters.page import GREY, HAIRLINE, INK, Page
from deeplab2_kmax.visualization.overlay import overlay
from deeplab2_kmax.wording import counted

# More layers than this get short names below the charts.
_MOST_LONG_TICKS = 7
# Width of a letter below the charts, in pixels.
_TICK_LETTER = 7
# Clusters with a smaller share of the pixels get no name in pictures and charts.
_NAMED_SHARE = 0.01
# Height of a row and largest width of the table, in pixels.
_TABLE_ROW, _TABLE_WIDEST = 25, 620


def cluster_panels(
    views: ClusterViews, size: tuple[int, int], numbers: ClusterNumbers | None = None
) -> list[np.ndarray]:
    """Draws each view alone, in the colors of the page.

    Args:
        views: the picture and its layers.
        size: height and width wanted.
        numbers: of these views, if they have been computed already.

    Returns:
        For each view [*size, 3] uint8 RGB; the last one has class names.
    """
    shares = (numbers or ClusterNumbers.from_views(views)).shares
    return _panels(views, cluster_colors(shares, views.class_colors), shares[-1], size)


@matplotlib.style.context("default")
def cluster_page(views: ClusterViews, title: str, numbers: ClusterNumbers | None = None) -> Page:
    """Draws the whole page, 1600 pixels wide.

    Args:
        views: the picture and its layers.
        title: headline.
        numbers: of these views, if they have been computed already.
    """
    numbers = numbers or ClusterNumbers.from_views(views)
    colors = cluster_colors(numbers.shares, views.class_colors)
    height, width = views.image.shape[:2]
    grid = fit_grid(width / height, len(views.layers))
    page = Page(WIDTH, grid.height)
    page.text(MARGIN, 62, _shortened(title, 80), 26, weight="bold")
    page.text(MARGIN, 90, views.subtitle, 14, GREY)
    _set_top(page, grid, views, numbers, colors)
    _set_layers(page, grid, views, numbers, colors)
    _set_charts(page, grid, views, numbers, colors / 255)
    return page


def _panels(
    views: ClusterViews, colors: np.ndarray, final_shares: np.ndarray, size: tuple[int, int], font_size: int = 0
) -> list[np.ndarray]:
    """The picture of each view; class names only on the last, on which the classes are predicted."""
    panels = [assignment_panel(views, i, colors, size) for i in range(len(views.layers))]
    names = _names(views, final_shares)
    panels[-1] = draw_captions(panels[-1], views.labels(size)[-1], names, smallest=1, font_size=font_size)
    return panels


def _names(views: ClusterViews, shares: np.ndarray) -> list[str]:
    """The class name of each cluster that is large enough to be named, else ""."""
    return [readable_class_name(name) if s >= _NAMED_SHARE else "" for name, s in zip(views.class_names, shares)]


def _set_top(page: Page, grid: Grid, views: ClusterViews, numbers: ClusterNumbers, colors: np.ndarray) -> None:
    """The photo, its segments and the table of clusters."""
    photo = np.asarray(Image.fromarray(views.image).resize(grid.top_size[::-1], Image.Resampling.LANCZOS))
    segments = overlay(photo, resample(views.panoptic, grid.top_size), views.dataset)
    for (x, y), picture, name in zip(grid.top, (photo, segments), ("Picture", "Segments")):
        page.text(x, y - 10, name, 15, weight="bold")
        page.picture(x, y, picture)
    if (views.panoptic == views.dataset.void_id).all():
        x, y = grid.top[1]
        page.text(x + 90, y - 10, "none is above the thresholds", 13, GREY)
    x, y = grid.table
    page.text(x, y - 10, "Clusters", 15, weight="bold")
    used = int(numbers.in_use[-1])
    page.text(x + 76, y - 10, f"with pixels in the end: {used} of {views.num_clusters}", 13, GREY)
    _set_table(page, grid, views, numbers.shares[-1], colors)


def _set_table(page: Page, grid: Grid, views: ClusterViews, shares: np.ndarray, colors: np.ndarray) -> None:
    """The largest clusters: color, index, class with its probability, share of the picture as a bar."""
    x, y = grid.table
    width = min(_TABLE_WIDEST, WIDTH - MARGIN - x)
    for at, head, side in (
        (x, "cluster", "left"),
        (x + 62, "class, probability", "left"),
        (x + width, "share", "right"),
    ):
        page.text(at, y + 11, head, 12, GREY, ha=side)
    page.rule(x, y + 20, width)
    y += _TABLE_ROW
    order = [n for n in np.argsort(-shares, kind="stable") if shares[n] > 0]
    rows = max(2, int(grid.table_height // _TABLE_ROW) - 1)
    shown = order if len(order) <= rows else order[: rows - 1]
    bar_x, bar_width = x + 218, width - 218 - 52
    for row, n in enumerate(shown):
        middle = y + 13 + row * _TABLE_ROW
        page.box(x, middle - 8, 16, 16, colors[n] / 255)
        page.text(x + 50, middle, str(n), 12, GREY, va="center_baseline", ha="right")
        name = readable_class_name(views.class_names[n])
        label = f"{_shortened(name, 15)} {views.class_scores[n]:.2f}" if name else "void"
        page.text(x + 62, middle, label, 13, INK if name else GREY, va="center_baseline")
        page.box(bar_x, middle - 4, bar_width, 8, HAIRLINE)
        page.box(bar_x, middle - 4, bar_width * shares[n] / shares.max(), 8, colors[n] / 255)
        page.text(x + width, middle, _percent(shares[n]), 13, va="center_baseline", ha="right")
    if len(shown) < len(order):
        rest = order[len(shown) :]
        middle = y + 13 + len(shown) * _TABLE_ROW
        text = f"and {counted(len(rest), 'smaller one')}, together {_percent(shares[rest].sum())}"
        page.text(x + 62, middle, text, 13, GREY, va="center_baseline")


def _set_layers(page: Page, grid: Grid, views: ClusterViews, numbers: ClusterNumbers, colors: np.ndarray) -> None:
    """The picture of each layer with its title and caption."""
    explanation = "a color is a cluster, the same one in every picture; pale where several clusters share a pixel"
    _headline(page, MARGIN, grid.panels[0][1] - 34, "Which cluster owns which pixel", explanation)
    panels = _panels(views, colors, numbers.shares[-1], grid.panel_size, font_size=13)
    for i, (panel, (x, y)) in enumerate(zip(panels, grid.panels)):
        page.text(x, y - 10, views.layers[i].title, 14, weight="bold")
        page.picture(x, y, panel)
        page.text(x, y + grid.panel_size[0] + 19, _caption(numbers, i), 12.5, GREY)


def _caption(numbers: ClusterNumbers, layer: int) -> str:
    used = int(numbers.in_use[layer])
    parts = [counted(used, "cluster")]
    if layer:
        parts.append(f"{_percent(numbers.moved[layer - 1])} moved")
    if numbers.sharing[layer] >= 1.05:
        parts.append(f"{numbers.sharing[layer]:.1f} per pixel")
    return " \N{MIDDLE DOT} ".join(parts)


def _set_charts(page: Page, grid: Grid, views: ClusterViews, numbers: ClusterNumbers, colors: np.ndarray) -> None:
    """The three charts with their headlines; colors in 0..1."""
    used = (numbers.shares > 0).any(0)
    names = _names(views, numbers.shares[-1])
    x, y, width, height = grid.flow
    ticks = _ticks(views.layers, width)
    _headline(page, x, y, "Where the pixels go", "layer by layer; a column is the picture, a color a cluster")
    draw_flows(page.axes(x, y, width, height), list(numbers.shares), list(numbers.flows), colors)
    for i, tick in enumerate(ticks):
        place = "left" if i == 0 else "right" if i == len(ticks) - 1 else "center"
        page.text(x + width * column_position(i, len(ticks)), y + height + 8, tick, 12.5, GREY, ha=place, va="top")

    x, y, width, height = grid.changes
    _headline(
        page, x, y, "How far the centers turn",
        "1 \N{MINUS SIGN} cosine to the same center one step earlier; grey: never owns a pixel",
    )  # fmt: skip
    drawn = np.where(used, numbers.shares[-1], -1)
    ticks = _ticks(views.layers[:-1], width - 44)
    draw_changes(page.axes(x + 44, y, width - 44, height), numbers.changes, colors, drawn, ticks)

    x, y, width, height = grid.paths
    share = _percent(numbers.explained.sum())
    _headline(page, x, y, "Which way they travel", f"principal plane, {share} of the variance; open dot: as learned")
    draw_paths(page.axes(x, y, width, height), numbers.paths, colors, numbers.shares[-1], used, names)


def _ticks(layers: tuple[LayerView, ...], width: float) -> list[str]:
    """Names of the layers below a chart of this width.

    Many layers get their number only, and the name of their place where it changes and there is room for it.
    """
    if len(layers) <= _MOST_LONG_TICKS:
        return [view.title for view in layers]
    ticks, before, free_from = [], None, -width
    for i, view in enumerate(layers):
        where, number = view.place
        middle, half = i * width / (len(layers) - 1), _TICK_LETTER * len(where) / 2
        written = where != before and middle - half >= free_from
        if written:
            free_from = middle + half + 2 * _TICK_LETTER
        ticks.append(f"{number}\n{where.lower()}" if written else number)
        before = where
    return ticks


def _headline(page: Page, x: float, y: float, title: str, explanation: str) -> None:
    page.text(x, y - 38, title, 17, weight="bold")
    page.text(x, y - 17, explanation, 13, GREY)


def _shortened(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _percent(share: float) -> str:
    """A share as text: with a decimal below ten percent ("3.2 %"), without above ("12 %")."""
    percent = 100 * float(share)
    return f"{percent:.0f} %" if percent >= 9.95 or percent == 0 else f"{percent:.1f} %"
