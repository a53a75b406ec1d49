"""A page for pictures, text and charts, placed in pixels from its upper left corner."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

INK, GREY, HAIRLINE, PAPER = "#1c2027", "#69707d", "#e3e5e9", "#ffffff"
_DPI = 100
_FONT = "DejaVu Sans"


class Page:
    """A light page of `width` x `height` pixels. Coordinates are pixels, y runs downwards."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=PAPER)
        self._canvas = FigureCanvasAgg(self.figure)
        # Axes over the whole page whose units are pixels, for everything except pictures and charts.
        self._sheet = self.figure.add_axes((0, 0, 1, 1))
        self._sheet.set(xlim=(0, width), ylim=(height, 0))
        self._sheet.axis("off")

    def text(self, x: float, y: float, text: str, size: float = 13, color: str = INK, **options: Any) -> None:
        """Writes a line of text, `size` pixels high, with its baseline at `y`; options are those of `Axes.text`."""
        # parse_math: a file name may hold dollar signs, which matplotlib would take for formulas.
        options = {"fontfamily": _FONT, "va": "baseline", "parse_math": False, **options}
        self._sheet.text(x, y, text, fontsize=points(size), color=color, **options)

    def rule(self, x: float, y: float, width: float) -> None:
        """Draws a thin horizontal line."""
        self._sheet.plot([x, x + width], [y, y], color=HAIRLINE, linewidth=points(1))

    def box(self, x: float, y: float, width: float, height: float, color: str | np.ndarray) -> None:
        """Draws a filled rectangle; the color is a name or RGB values in 0..1."""
        self._sheet.add_patch(Rectangle((x, y), width, height, facecolor=color, edgecolor="none"))

    def picture(self, x: int, y: int, pixels: np.ndarray) -> None:
        """Places a picture [H, W, 3] uint8 without resampling it, its upper left corner at (x, y)."""
        height, width = pixels.shape[:2]
        axes = self.axes(x, y, width, height)
        axes.imshow(pixels, interpolation="none", aspect="auto")
        axes.axis("off")

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Makes the axes of a chart, which fill the rectangle."""
        # Matplotlib counts from the lower left corner, in shares of the figure.
        bottom = self.height - y - height
        return self.figure.add_axes(
            (x / self.width, bottom / self.height, width / self.width, height / self.height), facecolor="none"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page to a local file, in the format of its ending (png, pdf, svg)."""
        self.figure.savefig(path, dpi=_DPI)

    def pixels(self) -> np.ndarray:
        """Renders the page as [height, width, 3] uint8 RGB."""
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()


def points(pixels: float) -> float:
    """Converts a length from pixels to points, matplotlib's unit for fonts and lines."""
    return pixels * 72 / _DPI


def plain_axes(axes: Axes) -> None:
    """Removes the frame of a chart and makes its tick labels small and grey."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=points(12), labelcolor=GREY, labelfontfamily=_FONT)
