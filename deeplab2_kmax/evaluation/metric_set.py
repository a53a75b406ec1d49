"""The metrics of an evaluation beside panoptic quality and mean IoU: which there are, fed and merged together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from deeplab2_kmax.datasets import DatasetDescriptor
from deeplab2_kmax.evaluation.boundary_quality import BoundaryQuality
from deeplab2_kmax.evaluation.calibration import Calibration
from deeplab2_kmax.evaluation.cityscapes_ap import CityscapesAP
from deeplab2_kmax.evaluation.compared_maps import ComparedMaps
from deeplab2_kmax.evaluation.instance_ap import InstanceAP
from deeplab2_kmax.evaluation.metric import Metric, MetricResult, packed, unpacked
from deeplab2_kmax.evaluation.size_quality import SizeQuality
from deeplab2_kmax.protos import evaluator_pb2


@dataclasses.dataclass(frozen=True)
class MetricSettings:
    """Which metrics there are; panoptic quality by the size of segments is always one.

    Attributes:
        instance_ap: COCO's AP of instances; needs maps with scores, as all kinds of AP.
        detailed_ap: its table and scalars tell AP and AR by IoU, size and number of detections, too.
        cityscapes_ap: Cityscapes' AP of instances.
        boundary_ratio: width of boundaries as a fraction of an image's diagonal, for Boundary PQ and Boundary IoU; 0:
            there are none.
        calibration: reliability diagrams and ECE of pixels and segments; needs maps with scores.
    """

    instance_ap: bool = True
    detailed_ap: bool = False
    cityscapes_ap: bool = False
    boundary_ratio: float = 0.0
    calibration: bool = False

    @classmethod
    def from_options(cls, options: evaluator_pb2.EvaluatorOptions) -> MetricSettings:
        """The settings of a config's `evaluator_options`."""
        return cls(
            detailed_ap=options.detailed_ap_metrics,
            cityscapes_ap=options.cityscapes_ap,
            # The shortest decimal number that the field's float32 is: 0.02, not 0.0199999996.
            boundary_ratio=float(str(np.float32(options.boundary_ratio))),
            calibration=options.calibration,
        )


class MetricSet:
    """Accumulates all of them. Their results have the names of entries in `metrics-<step>.json`.

    Args:
        descriptor: the data set.
        settings: which metrics there are.
    """

    def __init__(self, descriptor: DatasetDescriptor, settings: MetricSettings | None = None) -> None:
        settings = settings or MetricSettings()
        self._metrics: dict[str, Metric] = {"panoptic_quality_by_size": SizeQuality(descriptor)}
        if settings.instance_ap:
            self._metrics["instance_ap"] = InstanceAP(descriptor, detailed=settings.detailed_ap)
        if settings.cityscapes_ap:
            self._metrics["cityscapes_ap"] = CityscapesAP(descriptor)
        if settings.boundary_ratio > 0:
            self._metrics["boundary"] = BoundaryQuality(descriptor, settings.boundary_ratio)
        if settings.calibration:
            self._metrics["calibration"] = Calibration(descriptor)

    def update(self, maps: ComparedMaps) -> None:
        """Adds one image.

        Raises:
            DataError: a metric needs scores that the image does not have.
        """
        for metric in self._metrics.values():
            metric.update(maps)

    def to_bytes(self) -> bytes:
        """What has been accumulated, for another worker's `merge`."""
        return packed({name: np.frombuffer(metric.to_bytes(), np.uint8) for name, metric in self._metrics.items()})

    def merge(self, content: bytes) -> None:
        """Adds what another set with the same settings has accumulated over other images, as its `to_bytes`."""
        for name, state in unpacked(content).items():
            self._metrics[name].merge(state.tobytes())

    def results(self) -> dict[str, MetricResult]:
        """The results over all images so far, by name."""
        return {name: metric.result() for name, metric in self._metrics.items()}


def scalars_of(results: Mapping[str, MetricResult]) -> dict[str, float]:
    """The figures of all results by their names in TensorBoard."""
    return {name: value for result in results.values() for name, value in result.as_scalars().items()}
