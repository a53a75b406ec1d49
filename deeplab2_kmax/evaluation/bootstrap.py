"""Paired bootstrap over images: how far a difference in panoptic quality may be due to which images were measured.

Images are drawn with replacement, as many as there are, again and again; each draw gives both sides the same images.
Panoptic quality is a ratio of sums, so the sums of the drawn images are made first and the quality of these, never a
mean of qualities of images. The interval is that of percentiles, as `scipy.stats.bootstrap(method="percentile")` has
it; one matrix product makes the sums of many draws at once, where SciPy would copy the states of all images for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from deeplab2_kmax.errors import DataError
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQualityResult

QUALITIES = ("pq", "sq", "rq")
# Draws that are summed at once; the numbers of 5,000 images are 10 MB.
_TOGETHER = 256
# Of fewer images the draws are so alike that an interval would say nothing; of one image all draws are the same, and
# any difference would seem certain.
LEAST_IMAGES = 10
# The ends of an interval of 95 % are the 2.5 % of draws on either side; of fewer draws these are less than five.
LEAST_DRAWS = 200


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of a figure between two sides.

    Attributes:
        value: second side minus first, on all images; NaN where one of them has no such figure.
        low: lower end of the interval of resampled differences; NaN if there are none, or of fewer than `LEAST_IMAGES`.
        high: upper end.
    """

    value: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        """Whether the interval lies on one side of zero, so that these images show that there is a difference."""
        return bool(self.low > 0 or self.high < 0)


class PairedBootstrap:
    """Resamples the images of two sides together.

    Args:
        first: float64 [N, 4, C], the state of each image, see `PanopticQuality.state`.
        second: the states of the same images, in the same order, of the other side.
        draws: how often images are drawn; see `LEAST_DRAWS`.
        level: the share of draws within the intervals, 0..1.
        seed: of the draws; the same seed gives the same intervals.

    Raises:
        DataError: the sides have different images or classes, or none.
    """

    def __init__(
        self, first: np.ndarray, second: np.ndarray, *, draws: int = 2000, level: float = 0.95, seed: int = 0
    ) -> None:
        if first.shape != second.shape or first.ndim != 3 or not len(first):
            raise DataError(
                "expected the states of the same images and classes on both sides, [images, 4, classes]; got"
                f" {list(first.shape)} and {list(second.shape)}"
            )
        self.level = level
        # Which classes each image has segments of, on either side; images without any say nothing about a class.
        self._present = (first[:, 1:] + second[:, 1:]).any(1)
        both = np.stack([first, second], 1)
        images, sides, rows, classes = both.shape
        flat = both.reshape(images, -1)
        generator = np.random.default_rng(seed)
        sums = [flat.sum(0)[np.newaxis]]
        for start in range(0, draws, _TOGETHER):
            # How often each image is drawn.
            counts = generator.multinomial(images, np.full(images, 1 / images), min(_TOGETHER, draws - start))
            sums.append(counts.astype(np.float64) @ flat)
        # Row 0 is of the images as they are.
        self._sums = np.concatenate(sums).reshape(-1, sides, rows, classes)

    def of_mean(self, quality: str = "pq", chosen: np.ndarray | Sequence[bool] | None = None) -> Difference:
        """The difference of a mean over classes.

        Args:
            quality: one of `QUALITIES`.
            chosen: bool [C], the classes; None: all. Each side has the mean over those of which it has segments, as
                panoptic quality is defined.
        """
        chosen = np.ones(self._sums.shape[-1], bool) if chosen is None else np.asarray(chosen, bool)
        means = []
        for values, occurs in self._qualities(quality):
            counted = occurs & chosen
            # 0 where no class occurs, as in `PanopticQualityResult`.
            means.append((values * counted).sum(-1) / np.maximum(counted.sum(-1), 1))
        return self._difference(means[1] - means[0], self._present[:, chosen].any(-1).sum())

    def of_classes(self, quality: str = "pq") -> list[Difference]:
        """The difference for each class, C; NaN where a side has no segment of the class."""
        (first, of_first), (second, of_second) = self._qualities(quality)
        differences = np.where(of_first & of_second, second - first, np.nan)
        return [self._difference(*each) for each in zip(differences.T, self._present.sum(0))]

    def _qualities(self, quality: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each side the qualities of each draw, float64 [draws + 1, C], and whether there are such."""
        if quality not in QUALITIES:
            raise ValueError(f"expected one of {', '.join(QUALITIES)}, got {quality!r}")
        results = [
            PanopticQualityResult(None, *(self._sums[:, side, row] for row in range(4)))  # type: ignore[arg-type]
            for side in range(2)
        ]
        return [(getattr(result, quality), result.occurs) for result in results]

    def _difference(self, values: np.ndarray, images: int) -> Difference:
        """The difference on all images, and the interval of the draws, from float64 [draws + 1].

        Args:
            values: of the images as they are, and of each draw.
            images: how many have segments that the values are of.
        """
        drawn = values[1:][np.isfinite(values[1:])]
        if not np.isfinite(values[0]) or not len(drawn) or images < LEAST_IMAGES:
            return Difference(float(values[0]), float("nan"), float("nan"))
        outside = (1 - self.level) / 2
        low, high = np.quantile(drawn, [outside, 1 - outside])
        return Difference(float(values[0]), float(low), float(high))
