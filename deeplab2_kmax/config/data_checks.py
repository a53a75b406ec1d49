"""The rules for `DatasetOptions`: for `load_config`, and for the settings of the code that reads records.

Problems are sentences that start with the path of the field, so that all of a config's can be listed together.
"""

from __future__ import annotations

from collections.abc import Iterator

from deeplab2_kmax.config.problems import choice_problems
from deeplab2_kmax.config.value_ranges import range_problems
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import dataset_pb2

# Named here, because checking a config must not import TensorFlow; `input_pipeline.autoaugment` says what they do.
AUTOAUGMENT_POLICIES = ("simple_classification_policy", "simple_classification_policy_magnitude_scale_0.2")
PASTE_CHOICES = ("random", "none", "all")


def data_problems(options: dataset_pb2.DatasetOptions, where: str) -> list[str]:
    """What contradicts itself, or is not supported, in the options of a data set.

    Args:
        options: the options to check.
        where: path of the message in the config, "train_dataset_options" or "eval_dataset_options".
    """
    problems = [*_dataset_problems(options), *_size_problems(options), *_augmentation_problems(options)]
    # True is the default, so only a config that asks for it is told that it cannot have it.
    if options.HasField("resume_in_order") and options.resume_in_order and not options.HasField("seed"):
        problems.append("resume_in_order: needs a seed, without which there is no order to resume")
    return [*range_problems(options, where), *(f"{where}.{problem}" for problem in problems)]


def reading_problems(options: dataset_pb2.DatasetOptions, where: str, is_training: bool) -> list[str]:
    """`data_problems`, and what is missing for reading records.

    A config that is loaded for prediction or export needs none of the latter, so `load_config` does not ask for it.
    """
    problems = data_problems(options, where)
    if not options.file_pattern:
        problems.append(f"{where}.file_pattern: expected at least one pattern of TFRecord files, got none")
    if is_training and not options.decode_groundtruth_label:
        problems.append(f"{where}.decode_groundtruth_label: expected true, as training needs labels, got false")
    return problems


def _dataset_problems(options: dataset_pb2.DatasetOptions) -> Iterator[str]:
    try:
        load_dataset(options.dataset)
    except ConfigError as error:
        # The message names the field itself, or the descriptor file at fault.
        yield f"dataset: {str(error).removeprefix('dataset: ')}"
    for name in ("use_two_frames", "use_next_frame", "cameras_to_use"):
        if getattr(options, name):
            yield f"{name}: video and multi-camera input are not supported"


def _size_problems(options: dataset_pb2.DatasetOptions) -> Iterator[str]:
    crop = list(options.crop_size)
    has_crop = len(crop) == 2
    if not has_crop:
        yield f"crop_size: expected height and width, got {crop}"
    for name in ("min_resize_value", "max_resize_value"):
        if len(getattr(options, name)) > 2:
            yield f"{name}: expected one or two values, got {list(getattr(options, name))}"
    largest = list(options.max_resize_value)
    if len(largest) == 1:
        largest *= 2
    # A larger image would not fit the crop; sides <= 0 stand for no bound.
    exceeds = len(largest) == 2 and min(largest) > 0 and any(side > limit for side, limit in zip(largest, crop))
    if has_crop and exceeds:
        yield (
            f"max_resize_value: {largest} exceeds crop_size {crop};"
            f" --override=input_size={','.join(map(str, crop))} sets both, and those of the other data set"
        )


def _augmentation_problems(options: dataset_pb2.DatasetOptions) -> Iterator[str]:
    augmentations = options.augmentations
    smallest, largest = augmentations.min_scale_factor, augmentations.max_scale_factor
    if smallest > largest:
        yield f"augmentations: expected min_scale_factor <= max_scale_factor, got {smallest:g} and {largest:g}"
    if policy := augmentations.autoaugment_policy_name:
        yield from choice_problems("augmentations.autoaugment_policy_name", policy, AUTOAUGMENT_POLICIES)
    pasting = augmentations.panoptic_copy_paste
    # Without a scale nothing is pasted, whatever the other fields say.
    for kind in ("thing", "stuff", "void") if pasting.panoptic_copy_paste_scale > 0 else ():
        field = f"panoptic_copy_paste_{kind}_option"
        where = f"augmentations.panoptic_copy_paste.{field}"
        yield from choice_problems(where, getattr(pasting, field), PASTE_CHOICES)
