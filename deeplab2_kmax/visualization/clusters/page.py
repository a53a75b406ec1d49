"""A page to set pictures, text and charts on, in pixels from its upper left corner."""

from __future__ import annotations

import os

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
        self._sheet = self.figure.add_axes((0, 0, 1, 1))
        self._sheet.set(xlim=(0, width), ylim=(height, 0))
        self._sheet.axis("off")

    def text(self, x: float, y: float, text: str, size: float = 13, color: str = INK, **options) -> None:
        """Writes a line of `size` pixels with its baseline at `y`. Options as of matplotlib's text."""
        options = {"fontfamily": _FONT, "va": "baseline", "parse_math": False, **options}
        self._sheet.text(x, y, text, fontsize=points(size), color=color, **options)

    def rule(self, x: float, y: float, width: float) -> None:
        """A hairline."""
        self._sheet.plot([x, x + width], [y, y], color=HAIRLINE, linewidth=points(1))

    def box(self, x: float, y: float, width: float, height: float, color) -> None:
        """A filled rectangle."""
        self._sheet.add_patch(Rectangle((x, y), width, height, facecolor=color, edgecolor="none"))

    def picture(self, x: int, y: int, pixels: np.ndarray) -> None:
        """Sets a picture [H, W, 3] uint8 pixel by pixel, its upper left corner at (x, y)."""
        height, width = pixels.shape[:2]
        axes = self.axes(x, y, width, height)
        axes.imshow(pixels, interpolation="none", aspect="auto")
        axes.axis("off")

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes of a chart that fill the rectangle."""
        bottom = self.height - y - height
        return self.figure.add_axes(
            (x / self.width, bottom / self.height, width / self.width, height / self.height), facecolor="none"
        )

    def save(self, path: str | os.PathLike) -> None:
        """Writes the page; the ending tells the format (png, pdf, svg)."""
        self.figure.savefig(path, dpi=_DPI)

    def pixels(self) -> np.ndarray:
        """The page as [height, width, 3] uint8 RGB."""
        self._canvas.draw()
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()


def points(pixels: float) -> float:
    """Length in points, matplotlib's unit, of a length in pixels."""
    return pixels * 72 / _DPI


def plain_axes(axes: Axes) -> None:
    """Takes the frame off and leaves small grey tick labels."""
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=points(12), labelcolor=GREY, labelfontfamily=_FONT)
