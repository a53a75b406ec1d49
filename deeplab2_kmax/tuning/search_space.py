"""Which fields of post-processing are searched, and between which values."""

from __future__ import annotations

import dataclasses
from typing import Any

from deeplab2_kmax.protos import config_pb2

_MASKWISE = "maskwise_postprocessing"
# An area limit is searched up to this share of the network's input, or four times the config's if that is more.
_LARGEST_AREA = 0.01
_AREA_STEPS = 40


@dataclasses.dataclass(frozen=True)
class Dimension:
    """A field that is searched.

    Attributes:
        path: its name below `evaluator_options`.
        low: the lowest value that is tried.
        high: the highest; `high - low` is a multiple of `step`.
        step: between values. Values are round, so that what is printed is what was measured.
    """

    path: str
    low: float
    high: float
    step: float

    @property
    def is_whole(self) -> bool:
        """Whether the field holds whole numbers."""
        return isinstance(self.step, int)

    def value_in(self, config: config_pb2.ExperimentOptions) -> Any:
        """The config's value."""
        value: Any = config.evaluator_options
        for name in self.path.split("."):
            value = getattr(value, name)
        # Without the digits that float32 adds to 0.4.
        return value if self.is_whole else round(value, 6)

    def set_in(self, config: config_pb2.ExperimentOptions, value: float) -> None:
        """Gives the field of a config another value."""
        *messages, name = self.path.split(".")
        options: Any = config.evaluator_options
        for message in messages:
            options = getattr(options, message)
        setattr(options, name, value)


def search_space(config: config_pb2.ExperimentOptions) -> list[Dimension]:
    """The fields that the config's post-processing depends on."""
    options = config.evaluator_options
    # Below 1/3 more than two masks may share a pixel, which takes another way, ten times as slow.
    pixels = Dimension("pixel_confidence_threshold", 0.34, 0.7, 0.01)
    if options.transformer_post_processing == "maskwise":
        own = [
            Dimension(f"{_MASKWISE}.transformer_class_confidence_threshold_thing", 0.05, 0.95, 0.01),
            Dimension(f"{_MASKWISE}.transformer_class_confidence_threshold_stuff", 0.05, 0.95, 0.01),
            Dimension(f"{_MASKWISE}.overlapping_threshold", 0.0, 0.95, 0.01),
            # The order of painting depends only on the ratio of the two weights; the other keeps its value.
            Dimension(f"{_MASKWISE}.reorder_mask_weight", 0.0, 4.0, 0.1),
        ]
    else:
        own = [Dimension("transformer_class_confidence_threshold", 0.05, 0.95, 0.01)]
    height, width = config.eval_dataset_options.crop_size
    areas = []
    for name in ("thing_area_limit", "stuff_area_limit"):
        largest = max(4 * getattr(options, name), int(_LARGEST_AREA * height * width))
        step = max(1, largest // _AREA_STEPS)
        areas.append(Dimension(name, 0, largest // step * step, step))
    return [pixels, *own, *areas]


def with_values(config: config_pb2.ExperimentOptions, values: dict[str, Any]) -> config_pb2.ExperimentOptions:
    """A copy of the config with other values of some fields, by `Dimension.path`."""
    changed = config_pb2.ExperimentOptions()
    changed.CopyFrom(config)
    for dimension in search_space(config):
        if dimension.path in values:
            dimension.set_in(changed, values[dimension.path])
    return changed


def config_lines(config: config_pb2.ExperimentOptions, values: dict[str, float]) -> str:
    """The lines to merge into a config, a textproto.

    Args:
        config: the experiment.
        values: of the fields, by `Dimension.path`.
    """
    tuned = config_pb2.ExperimentOptions()
    for dimension in search_space(config):
        if dimension.path in values:
            dimension.set_in(tuned, values[dimension.path])
    return str(tuned).rstrip("\n")


def override_flags(values: dict[str, Any]) -> str:
    """The same as flags of a command, a line each; they also work with a config that is not to be changed."""
    return "\n".join(f"--override=evaluator_options.{path}={value}" for path, value in values.items())
