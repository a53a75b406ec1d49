"""Draws the charts of a clustering: where pixels go, how far centers turn, which way they travel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb

from deeplab2_kmax.visualization.clusters.page import HAIRLINE, INK, PAPER, plain_axes, points

# For centers that own no pixel.
_UNUSED = "#c3c7ce"
# Half the width of a column of the flow chart; the distance between columns is one.
_BAR = 0.035
# The border of a ribbon: points from one column to the next, and the part of its way down that it has gone there; it is
# level at both ends.
_STEPS = np.linspace(0, 1, 24)
_EASE = _STEPS**2 * (3 - 2 * _STEPS)


def draw_flows(axes: Axes, shares: list[np.ndarray], flows: list[np.ndarray], colors: np.ndarray) -> None:
    """Draws a column of clusters for each layer, and between columns a ribbon for each group of pixels that goes along.

    A ribbon is more opaque if its pixels stay in their cluster.

    Args:
        axes: to draw on.
        shares: K arrays [N], share of the pixels that each cluster owns.
        flows: K - 1 arrays [N, N], share of the pixels that go from the row's cluster to the column's.
        colors: [N, 3] float 0..1.
    """
    # White space between clusters takes up at most a sixth of the height.
    gap = min(0.008, 1 / 6 / max((share > 0).sum() for share in shares))
    order = np.argsort(-shares[-1], kind="stable")
    tops = [_stack(share, order, gap) for share in shares]
    for column, flow in enumerate(flows):
        ribbons, tints = _ribbons(flow, order, tops[column], tops[column + 1])
        outlines = [np.stack([column + _BAR + (1 - 2 * _BAR) * x, y], -1) for x, y in ribbons]
        faces = [(*colors[n], 0.5 if stays else 0.32) for n, stays in tints]
        axes.add_collection(PolyCollection(outlines, facecolors=faces, edgecolors="none"))
    bars, faces = [], []
    for column, (share, top) in enumerate(zip(shares, tops)):
        for n in np.flatnonzero(share):
            left, right = column - _BAR, column + _BAR
            bars.append([(left, top[n]), (right, top[n]), (right, top[n] + share[n]), (left, top[n] + share[n])])
            faces.append(colors[n])
    axes.add_collection(PolyCollection(bars, facecolors=faces, edgecolors="none"))
    depth = max((top + share)[share > 0].max() for share, top in zip(shares, tops))
    axes.set(xlim=(-_BAR, len(shares) - 1 + _BAR), ylim=(max(depth, 1), 0))
    axes.axis("off")


def column_position(column: int, num_columns: int) -> float:
    """The x of a column of the flow chart as a share of the chart's width; of the outer columns, their outer end."""
    if column in (0, num_columns - 1):
        return float(column > 0)
    return (column + _BAR) / (num_columns - 1 + 2 * _BAR)


def _stack(share: np.ndarray, order: np.ndarray, gap: float) -> np.ndarray:
    """[N] y of the upper end of each cluster in a column, stacked in the given order with a gap between two."""
    heights = np.where(share > 0, share + gap, 0)[order]
    tops = np.empty(len(share))
    tops[order] = np.cumsum(heights) - heights
    return tops


def _ribbons(
    flow: np.ndarray, order: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[tuple[int, bool]]]:
    """The ribbons between two columns.

    Args:
        flow: [N, N] share of the pixels that go from the row's cluster to the column's.
        order: [N] clusters from top to bottom.
        start: [N] upper ends of the clusters in the left column.
        end: [N] upper ends of the clusters in the right column.

    Returns:
        For each ribbon the x (0..1) and y of its outline; and the cluster it comes from, with whether it stays there.
    """
    sorted_flow = flow[np.ix_(order, order)]
    # Ribbons leave and enter a cluster in the order of the clusters at their other end, so that few of them cross.
    leaving = start[order][:, None] + np.cumsum(sorted_flow, 1) - sorted_flow
    arriving = end[order][None] + np.cumsum(sorted_flow, 0) - sorted_flow
    outlines, tints = [], []
    for i, j in zip(*np.nonzero(sorted_flow)):
        upper = leaving[i, j] + _EASE * (arriving[i, j] - leaving[i, j])
        lower = upper[::-1] + sorted_flow[i, j]
        outlines.append((np.concatenate([_STEPS, _STEPS[::-1]]), np.concatenate([upper, lower])))
        tints.append((int(order[i]), bool(i == j)))
    return outlines, tints


def draw_changes(axes: Axes, changes: np.ndarray, colors: np.ndarray, shares: np.ndarray, ticks: list[str]) -> None:
    """Draws a line for each center: how far it turned in each layer.

    Args:
        axes: to draw on.
        changes: [layers, N], 1 - cosine.
        colors: [N, 3] float 0..1.
        shares: [N], the final share of pixels, larger ones in front; negative for centers to draw in grey, behind.
        ticks: a name for each layer.
    """
    plain_axes(axes)
    steps = np.arange(len(changes))
    unused, used = np.flatnonzero(shares < 0), [n for n in np.argsort(shares, kind="stable") if shares[n] >= 0]
    axes.add_collection(_lines(steps, changes[:, unused], [_UNUSED], 0.7, 0.6))
    widths = 1 + np.minimum(1.2, 12 * shares[used])
    axes.add_collection(_lines(steps, changes[:, used], colors[used], widths, 0.95))
    for n in used:
        axes.plot(steps, changes[:, n], "o", color=colors[n], markersize=3.2, markeredgewidth=0)
    highest = max(float(changes.max(initial=0)), 1e-6)
    axes.set(xlim=(-0.15, max(len(changes) - 1, 0.5) + 0.15), ylim=(-0.03 * highest, 1.05 * highest))
    axes.set_xticks(steps, ticks)
    axes.locator_params(axis="y", nbins=4)
    axes.grid(axis="y", color=HAIRLINE, linewidth=points(1))
    axes.set_axisbelow(True)


def _lines(
    steps: np.ndarray, values: np.ndarray, colors: Any, width: float | np.ndarray, alpha: float
) -> LineCollection:
    """A line for each column of `values` [K, N] over `steps` [K]."""
    segments = [np.stack([steps, column], -1) for column in values.T]
    return LineCollection(segments, colors=colors, linewidths=width, alpha=alpha)


def draw_paths(
    axes: Axes, paths: np.ndarray, colors: np.ndarray, shares: np.ndarray, used: np.ndarray, names: Sequence[str]
) -> None:
    """Draws the path of each center through a plane, from an open dot to a full one.

    Args:
        axes: to draw on.
        paths: [steps, N, 2] coordinates.
        colors: [N, 3] float 0..1.
        shares: [N], the final share of pixels, which is the size of the full dot.
        used: [N] bool; the other centers are drawn in grey behind.
        names: N texts for the ends of the paths; "" for none.
    """
    plain_axes(axes)
    axes.set_xticks([])
    axes.set_yticks([])
    _draw_group(axes, paths[:, ~used], np.repeat([to_rgb(_UNUSED)], (~used).sum(), 0), np.full((~used).sum(), 6.0), 0.7)
    _draw_group(axes, paths[:, used], colors[used], 14 + 420 * shares[used], 1.6)
    axes.margins(0.08)
    # Equal units on both axes, so that distances can be compared.
    axes.set_aspect("equal", adjustable="datalim")
    axes.autoscale_view()
    # Otherwise the aspect takes effect when the page is drawn, and the names below would be placed by a wrong scale.
    axes.apply_aspect()
    _write_names(axes, paths[-1], shares, names)


def _draw_group(axes: Axes, paths: np.ndarray, colors: np.ndarray, sizes: np.ndarray, width: float) -> None:
    """Draws paths [steps, N, 2] with dots at each step; `sizes` are areas of the last dots in square points."""
    lines = [paths[:, n] for n in range(paths.shape[1])]
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=width, alpha=0.75))
    first, last = paths[0], paths[-1]
    edges = [tuple(color) for color in colors]
    axes.scatter(first[:, 0], first[:, 1], s=10 * width, facecolors=PAPER, edgecolors=edges, linewidths=0.8, zorder=2)
    for middle in paths[1:-1]:
        axes.scatter(middle[:, 0], middle[:, 1], s=5 * width, c=colors, linewidths=0, zorder=2)
    axes.scatter(last[:, 0], last[:, 1], s=sizes, c=colors, edgecolors=PAPER, linewidths=0.8, zorder=3)


def _write_names(axes: Axes, ends: np.ndarray, shares: np.ndarray, names: Sequence[str]) -> None:
    """Writes names at the ends [N, 2] of the paths, the largest clusters first; leaves out what would cover another."""
    taken: list[tuple[float, float]] = []
    pixels = axes.transData.transform(ends)
    for n in np.argsort(-shares, kind="stable"):
        x, y = pixels[n]
        if not names[n] or any(abs(x - other[0]) < 90 and abs(y - other[1]) < 15 for other in taken):
            continue
        taken.append((x, y))
        axes.annotate(
            names[n],
            ends[n],
            xytext=(points(9), points(-4)),
            textcoords="offset points",
            fontsize=points(12),
            color=INK,
            parse_math=False,
            path_effects=[patheffects.withStroke(linewidth=2.5, foreground=PAPER)],
            zorder=4,
        )
