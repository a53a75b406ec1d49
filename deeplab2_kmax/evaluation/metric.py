"""What the metrics of a `MetricSet` have in common: they add up over images and workers, and say their results."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from deeplab2_kmax.evaluation.compared_maps import ComparedMaps


class TableBlock(NamedTuple):
    """A part of the table of results.

    Attributes:
        headings: of the columns, the first being that of names.
        rows: cells, of which the first is a name.
    """

    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


class MetricResult(Protocol):
    """The result of a metric."""

    def as_scalars(self) -> dict[str, float]:
        """Figures by the names of scalars in TensorBoard; the same names whatever the images are."""

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON file."""

    def as_block(self) -> TableBlock:
        """The result for people."""


class Metric(Protocol):
    """Accumulates what a result is computed from, image by image."""

    def update(self, maps: ComparedMaps) -> None:
        """Adds an image."""

    def to_bytes(self) -> bytes:
        """What has been accumulated, for another worker's `merge`."""

    def merge(self, content: bytes) -> None:
        """Adds what another metric of the same kind and data set has accumulated, as its `to_bytes`."""

    def result(self) -> MetricResult:
        """The result over all images so far."""


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays by name as bytes."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type,unused-ignore]  # NumPy 2 has a parameter of another type.
    return content.getvalue()


def unpacked(content: bytes) -> dict[str, np.ndarray]:
    """The reverse of `packed`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def percent(fraction: float) -> str:
    """A cell of the table: 0.41324 is "41.32"."""
    return f"{100 * fraction:.2f}"
