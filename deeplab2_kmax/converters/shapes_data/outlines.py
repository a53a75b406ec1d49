"""The things of the data set `shapes` as signed distances to their edge, from which label, edge and rim are drawn."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

# The number of corners, and for a star the radius of its notches as a share of that of its tips.
_CORNERS: dict[str, tuple[int, float | None]] = {
    "circle": (0, None),
    "square": (4, None),
    "triangle": (3, None),
    "star": (5, 0.45),
}
# The radius of the corners over the nominal radius, chosen so that things of one nominal radius look equally large.
_OUTER = {"circle": 1.0, "square": 1.2, "triangle": 1.4, "star": 1.4}


@dataclasses.dataclass(frozen=True)
class Stamp:
    """A thing at its place in the image.

    Attributes:
        window: (rows, columns) of the part of the image that holds the thing; it ends at the image border.
        distance: float32 [rows, columns], the distance to the edge of the thing in pixels; negative inside.
        shade: float32 [rows, columns], about -1 at the thing's upper left to 1 at its lower right.
    """

    window: tuple[slice, slice]
    distance: np.ndarray
    shade: np.ndarray

    @property
    def inside(self) -> np.ndarray:
        """The pixels of the thing: bool [rows, columns]."""
        return self.distance <= 0


def stamp_thing(kind: str, center: np.ndarray, radius: float, rotation: float, size: int) -> Stamp:
    """Computes the signed distances of one thing.

    Args:
        kind: "circle", "square", "triangle" or "star".
        center: (row, column) in pixels.
        radius: the nominal radius in pixels.
        rotation: in radians.
        size: height and width of the image in pixels.
    """
    outer = radius * _OUTER[kind]
    row_slice, column_slice = (slice(max(0, int(c - outer - 1)), min(size, int(c + outer + 3))) for c in center)
    window = (row_slice, column_slice)
    rows, columns = (np.arange(w.start, w.stop, dtype=np.float32) + 0.5 - c for w, c in zip(window, center))
    y, x = rows[:, None], columns[None, :]
    return Stamp(window, _distance(kind, y, x, outer, rotation), (x + y) / (2 * radius))


def _distance(kind: str, y: np.ndarray, x: np.ndarray, outer: float, rotation: float) -> np.ndarray:
    """The signed distance to the edge of a thing around (0, 0), whose corners lie at radius `outer`."""
    corners, inner_share = _CORNERS[kind]
    from_center = np.hypot(y, x)
    if not corners:
        return from_center - outer
    # The thing is made of equal sectors, each symmetric. So the angle from a sector's middle is enough, and within half
    # a sector the edge is one straight line.
    sector = 2 * math.pi / corners
    angle = np.abs((np.arctan2(y, x) - rotation) % sector - sector / 2)
    along, across = from_center * np.cos(angle), from_center * np.sin(angle)
    if inner_share is None:
        return along - outer * math.cos(sector / 2)
    # The line from the tip (outer, 0) to the notch at half a sector.
    inner = outer * inner_share
    edge_x, edge_y = inner * math.cos(sector / 2) - outer, inner * math.sin(sector / 2)
    return ((along - outer) * edge_y - across * edge_x) / math.hypot(edge_x, edge_y)
