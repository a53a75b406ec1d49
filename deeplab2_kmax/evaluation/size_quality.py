"""Panoptic quality by the size of segments, in COCO's three sizes.

A matched pair and a missed segment count in the size of the true segment, a false positive in its own. So quality is
that of finding the segments of a size; sums over the sizes are those of panoptic quality.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.evaluation.compared_maps import ComparedMaps
from deeplab2_kmax.evaluation.metric import TableBlock, packed, percent, unpacked
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQualityResult, match_segments, sums_of_matches

# The areas, in pixels, up to which segments are small and medium, both included as in COCO's AP.
_BOUNDS = (32**2, 96**2)
SIZES = ("small", "medium", "large")


@dataclasses.dataclass(frozen=True)
class SizeQualityResult:
    """Panoptic quality of the segments of each size.

    Attributes:
        of_sizes: by size.
    """

    of_sizes: dict[str, PanopticQualityResult]

    def as_scalars(self) -> dict[str, float]:
        """Scalars for TensorBoard: PQ, SQ and RQ, 0..1, under `evaluation/pq_small`, `pq_medium` and `pq_large`."""
        return {
            f"evaluation/pq_{size}/{name.upper()}": getattr(result.all, name)
            for size, result in self.of_sizes.items()
            for name in ("pq", "sq", "rq")
        }

    def as_dict(self) -> dict[str, Any]:
        """The result for a JSON file: what `PanopticQualityResult.as_dict` says, by size."""
        return {size: result.as_dict() for size, result in self.of_sizes.items()}

    def as_block(self) -> TableBlock:
        """The part of the table."""
        rows: list[tuple[str, ...]] = [
            (size, *map(percent, result.all[:3]), str(result.all.classes)) for size, result in self.of_sizes.items()
        ]
        return TableBlock(("by size", "PQ", "SQ", "RQ", "classes"), rows)


class SizeQuality:
    """Accumulates panoptic quality by size: sums, as large for any number of images.

    Args:
        descriptor: the data set.
    """

    def __init__(self, descriptor: DatasetDescriptor) -> None:
        self.descriptor = descriptor
        self._sums = np.zeros((4, len(SIZES), len(descriptor.classes)))

    def update(self, maps: ComparedMaps) -> None:
        """Adds one image; raises DataError where an id's class is not in the data set."""
        truth, prediction = maps.segments(self.descriptor)
        matches = match_segments(truth, prediction, maps.overlaps.pixels)
        classes = len(self.descriptor.classes)
        true_groups, predicted_groups = (
            np.searchsorted(_BOUNDS, segments.areas) * classes + segments.classes for segments in (truth, prediction)
        )
        sums = sums_of_matches(true_groups, predicted_groups, matches, len(SIZES) * classes)
        self._sums += sums.reshape(self._sums.shape)

    def merge(self, content: bytes) -> None:
        """Adds what another SizeQuality has accumulated over other images of the same data set, as its `to_bytes`."""
        self._sums += unpacked(content)["sums"]

    def to_bytes(self) -> bytes:
        """What has been accumulated, for another worker's `merge`."""
        return packed({"sums": self._sums})

    def result(self) -> SizeQualityResult:
        """The quality over all images so far."""
        by_size = zip(SIZES, np.moveaxis(self._sums, 1, 0))
        return SizeQualityResult({size: PanopticQualityResult(self.descriptor, *sums) for size, sums in by_size})
