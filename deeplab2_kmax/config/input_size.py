"""The override `input_size=641,641`: all the fields that decide at which size the network sees images, at once."""

from __future__ import annotations

import re

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2, dataset_pb2

NAME = "input_size"
_DATA = ("train_dataset_options", "eval_dataset_options")
_AREAS = ("thing_area_limit", "stuff_area_limit")
_LARGEST = 100_000  # pixels; beyond what any memory holds, and within what the fields take


def set_input_size(config: config_pb2.ExperimentOptions, value: str) -> str:
    """Has training and evaluation see images scaled down (or up) to another size, in place.

    In both data sets it sets `crop_size` and `max_resize_value`, so that whole images are scaled until they fit, and
    `min_resize_value` where the config sets one, so that small images are still enlarged. Data without it, such as
    Cityscapes', are only ever scaled down. The area limits of post-processing count pixels at crop size; they change
    with the area, as they do between the shipped configs for 641, 1025 and 1281.

    Args:
        config: the config to change.
        value: "height,width" in pixels, or one number for both.

    Returns:
        A sentence that says what was set.

    Raises:
        ConfigError: the value is something else. Whether the model takes this size is for the checks to say.
    """
    size = _sides(value)
    before = _area(config)
    for name in _DATA:
        if config.HasField(name):
            _set_data_size(getattr(config, name), size)
    limits = _scale_area_limits(config.evaluator_options, size[0] * size[1] / before) if before else ""
    return (
        f"{NAME} {size[0]} x {size[1]}: crop_size and the resize values of both data sets"
        f"{', ' if limits else ''}{limits}"
    )


def _sides(value: str) -> tuple[int, int]:
    sides = [part.strip() for part in value.strip("[] ").split(",")]
    if len(sides) not in (1, 2) or not all(re.fullmatch("[0-9]{1,9}", s) and 0 < int(s) <= _LARGEST for s in sides):
        raise ConfigError(
            f"override '{NAME}={value}': expected height and width in pixels such as {NAME}=641,641, or one number for"
            f" both, of at most {_LARGEST}, got {value!r}"
        )
    return int(sides[0]), int(sides[-1])


def _area(config: config_pb2.ExperimentOptions) -> int:
    """The pixels of the evaluation crop, which the area limits were chosen for; 0 where it is not set."""
    crop = list(config.eval_dataset_options.crop_size) or list(config.train_dataset_options.crop_size)
    return crop[0] * crop[1] if len(crop) == 2 else 0


def _set_data_size(options: dataset_pb2.DatasetOptions, size: tuple[int, int]) -> None:
    names = ["crop_size", "max_resize_value"]
    if options.min_resize_value and min(options.min_resize_value) > 0:
        names.append("min_resize_value")
    for name in names:
        getattr(options, name)[:] = size


def _scale_area_limits(options: config_pb2.EvaluatorOptions, factor: float) -> str:
    changes = []
    for name in _AREAS:
        if limit := getattr(options, name):
            setattr(options, name, max(1, round(limit * factor)))
            changes.append(f"{name} {limit} -> {getattr(options, name)}")
    return ", ".join(changes)
