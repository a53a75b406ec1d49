"""Times the stages of several models in turns, so that whatever else the machine does slows all of them alike."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from deeplab2_kmax.cli.inference_benchmark.cold_start import ColdStart
from deeplab2_kmax.cli.inference_benchmark.machine import matrix_product
from deeplab2_kmax.cli.inference_benchmark.models import BenchmarkedModel, Size, decoded

DECODE, NETWORK, POSTPROCESSING, WHOLE = STAGES = ("decode", "network", "post-processing", "whole")
# A multiply-add is a multiplication and an addition.
_FLOP = 2


@dataclasses.dataclass(frozen=True)
class Row:
    """The figures of a model at one size and batch.

    Attributes:
        label: a letter that stands for the model.
        name: of the model.
        size: of the network's input.
        batch: number of pictures in each call.
        precision: of the network.
        times: stage of `STAGES` -> seconds of a batch, turn by turn. Network and post-processing are missing of models
            that have no such parts.
        limit: floating-point operations a second of the fastest matrix product, in the network's precision.
        times_of_first: of the first model in the same turns, as `times`.
        multiply_adds: of the network for one picture; None where it is not known.
        cold_starts: may be none.
    """

    label: str
    name: str
    size: Size
    batch: int
    precision: str
    times: dict[str, list[float]]
    limit: float
    times_of_first: dict[str, list[float]]
    multiply_adds: int | None = None
    cold_starts: tuple[ColdStart, ...] = ()

    def median(self, stage: str) -> float | None:
        """Seconds of a batch; None where the model has no such stage."""
        return statistics.median(self.times[stage]) if stage in self.times else None

    def spread(self, stage: str) -> float | None:
        """Half the range of the middle half of all turns, in seconds."""
        if stage not in self.times:
            return None
        low, high = np.percentile(self.times[stage], [25, 75])
        return float(high - low) / 2

    @property
    def images_per_second(self) -> float:
        """By the whole way from picture files to maps."""
        return self.batch / statistics.median(self.times[WHOLE])

    @property
    def speedup(self) -> float:
        """How many times faster the whole is than that of the first model: the median of the ratios of each turn."""
        return statistics.median(first / own for first, own in zip(self.times_of_first[WHOLE], self.times[WHOLE]))

    @property
    def share_of_limit(self) -> float | None:
        """The operations a second of the network, as a share of `limit`."""
        seconds = self.median(NETWORK)
        if seconds is None or self.multiply_adds is None:
            return None
        return _FLOP * self.multiply_adds * self.batch / seconds / self.limit

    def cold(self, field: str) -> float | None:
        """The median of a field of all cold starts."""
        values = [getattr(start, field) for start in self.cold_starts]
        return statistics.median(values) if values else None


def with_common_limits(rows: Sequence[Row]) -> list[Row]:
    """The rows with the largest limit that has been met in their precision, whichever of them met it."""
    largest: dict[str, float] = {}
    for row in rows:
        largest[row.precision] = max(row.limit, largest.get(row.precision, 0.0))
    return [dataclasses.replace(row, limit=largest[row.precision]) for row in rows]


def measure(
    models: Sequence[BenchmarkedModel], picture: str, batch: int, rounds: int, matrix_size: int
) -> tuple[list[dict[str, list[float]]], dict[str, float]]:
    """Times all stages of all models.

    Args:
        models: take turns; those of the first one come first.
        picture: path of a picture file.
        batch: how many times it is in each call.
        rounds: number of turns.
        matrix_size: height and width of the matrices whose product is timed in each turn.

    Returns:
        For each model {stage: seconds of each turn}; and {precision: floating-point operations a second of the fastest
        matrix product}.
    """
    pictures = decoded(picture, batch)
    products = {model.precision: matrix_product(model.precision, matrix_size) for model in models}
    stages = [_stages(model, picture, pictures, batch) for model in models]
    # Once without the clock: first calls are told from cold starts.
    for function in [*products.values(), *(each for of_model in stages for each in of_model.values())]:
        function()
    times: list[dict[str, list[float]]] = [{DECODE: [], **{stage: [] for stage in of_model}} for of_model in stages]
    product_times: dict[str, list[float]] = {precision: [] for precision in products}
    for _ in range(rounds):
        for precision, product in products.items():
            product_times[precision].append(_seconds(product))
        decode = _seconds(lambda: decoded(picture, batch))
        for of_model in times:
            of_model[DECODE].append(decode)
        # Stage by stage, so that the same stages of two models are neighbours.
        for stage in STAGES:
            for of_model, functions in zip(times, stages):
                if stage in functions:
                    of_model[stage].append(_seconds(functions[stage]))
    operations = _FLOP * matrix_size**3
    return times, {precision: operations / min(seconds) for precision, seconds in product_times.items()}


def _stages(model: BenchmarkedModel, picture: str, pictures: np.ndarray, batch: int) -> dict[str, Callable[[], object]]:
    """What to call for each stage of a model except decoding, which all models share."""
    stages: dict[str, Callable[[], object]] = {}
    network, postprocess = model.network, model.postprocess
    if network is not None and postprocess is not None:
        outputs, (height, width) = network(pictures), pictures.shape[1:3]
        stages[NETWORK] = lambda: network(pictures)
        stages[POSTPROCESSING] = lambda: postprocess(outputs, (height, width))
    stages[WHOLE] = lambda: model.segment(decoded(picture, batch))
    return stages


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
