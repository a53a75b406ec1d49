"""The things of the `shapes` data set as signed distances, which give label, smooth edge and outline alike."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

# Corners, and the inner radius as a share of the outer one (None: straight sides); a circle has no corners.
_CORNERS = {"circle": (0, None), "square": (4, None), "triangle": (3, None), "star": (5, 0.45)}
# Outer radius over nominal radius, chosen so that things of one nominal radius look equally large.
_OUTER = {"circle": 1.0, "square": 1.2, "triangle": 1.4, "star": 1.4}


@dataclasses.dataclass(frozen=True)
class Stamp:
    """A thing at its place in the image.

    Attributes:
        window: (row slice, column slice) of the image part that holds the thing, cut off at the image border.
        distance: float32 [rows, columns], pixels to the thing's edge; negative inside.
        shade: float32 [rows, columns], about -1 at the thing's upper left to 1 at its lower right.
    """

    window: tuple[slice, slice]
    distance: np.ndarray
    shade: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """Pixels of the thing: bool [rows, columns]."""
        return self.distance <= 0


def stamp_thing(kind: str, center: np.ndarray, radius: float, rotation: float, size: int) -> Stamp:
    """The signed distances of one thing.

    Args:
        kind: "circle", "square", "triangle" or "star".
        center: (row, column) in pixels.
        radius: nominal radius in pixels.
        rotation: in radians.
        size: height and width of the image in pixels.
    """
    outer = radius * _OUTER[kind]
    window = tuple(slice(max(0, int(c - outer - 1)), min(size, int(c + outer + 3))) for c in center)
    rows, columns = (np.arange(w.start, w.stop, dtype=np.float32) + 0.5 - c for w, c in zip(window, center))
    y, x = rows[:, None], columns[None, :]
    return Stamp(window, _distance(kind, y, x, outer, rotation), (x + y) / (2 * radius))


def _distance(kind: str, y: np.ndarray, x: np.ndarray, outer: float, rotation: float) -> np.ndarray:
    corners, inner_share = _CORNERS[kind]
    from_center = np.hypot(y, x)
    if not corners:
        return from_center - outer
    # Every side lies in a sector of its own; turned onto each other, one straight line bounds them all.
    sector = 2 * math.pi / corners
    angle = np.abs((np.arctan2(y, x) - rotation) % sector - sector / 2)
    along, across = from_center * np.cos(angle), from_center * np.sin(angle)
    if inner_share is None:
        return along - outer * math.cos(sector / 2)
    # The line from the tip (outer, 0) to the notch at half a sector.
    inner = outer * inner_share
    edge_x, edge_y = inner * math.cos(sector / 2) - outer, inner * math.sin(sector / 2)
    return ((along - outer) * edge_y - across * edge_x) / math.hypot(edge_x, edge_y)
