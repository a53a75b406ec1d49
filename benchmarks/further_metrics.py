"""Times the metrics of evaluation per image of 480 x 640, each beside panoptic quality.

    python benchmarks/further_metrics.py [--images=8] [--repeats=5]

All take turns in one process on the label maps of benchmarks/panoptic_quality.py. What several metrics share, the table
of overlaps and the scores of segments, is a line of its own, as evaluation computes it once.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

import numpy as np
from beside_deeplab2 import argument_parser, take_turns
from panoptic_quality import synthetic_pair

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.evaluation.boundary_quality import BoundaryQuality
from deeplab2_kmax.evaluation.calibration import Calibration
from deeplab2_kmax.evaluation.cityscapes_ap import CityscapesAP
from deeplab2_kmax.evaluation.compared_maps import ComparedMaps
from deeplab2_kmax.evaluation.instance_ap import InstanceAP
from deeplab2_kmax.evaluation.mean_iou import MeanIoU
from deeplab2_kmax.evaluation.panoptic_quality import PanopticQuality
from deeplab2_kmax.evaluation.size_quality import SizeQuality


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", type=int, default=8, help="different images")
    parser.add_argument("--repeats", type=int, default=5, help="how often each image is counted")
    arguments = parser.parse_args()

    dataset = load_dataset("coco_panoptic")
    quality, iou = PanopticQuality(dataset), MeanIoU(dataset)
    kinds = (SizeQuality, InstanceAP, CityscapesAP, BoundaryQuality, Calibration)
    metrics = {kind.__name__: kind(dataset) for kind in kinds}
    times: dict[str, list[float]] = {}
    for seed in range(arguments.images):
        truth, prediction = synthetic_pair(seed)
        classes = truth // dataset.label_divisor, prediction // dataset.label_divisor
        scores = np.random.default_rng(seed).random((2, *truth.shape), np.float32)
        maps = ComparedMaps(truth, prediction, *scores, "", *classes)
        of_maps = (*maps.segments(dataset), maps.overlaps.pixels)
        maps.scored_segments  # noqa: B018 - computed now, so that no metric's time has it.

        def shared(maps: ComparedMaps = maps) -> None:
            again = ComparedMaps(maps.truth, maps.prediction, maps.instance_scores, maps.semantic_scores)
            _ = again.overlaps, again.scored_segments

        functions: dict[str, Callable[[], object]] = {
            "shared": shared,
            "PanopticQuality": functools.partial(quality.add, *of_maps),
            "MeanIoU": functools.partial(iou.update, *classes),
            **{name: functools.partial(metric.update, maps) for name, metric in metrics.items()},
        }
        for name, seconds in take_turns(functions, arguments.repeats).items():
            times.setdefault(name, []).extend(seconds)
    for name, seconds in times.items():
        print(f"{name:>16} {1000 * statistics.median(seconds):>8.2f} ms an image")


if __name__ == "__main__":
    main()
