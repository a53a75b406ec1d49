"""Experiment configs: read a text proto, apply overrides, make implicit choices explicit, check.

    config = load_config("configs/coco/kmax_r50.textproto", ["train_dataset_options.batch_size=2"])

Every text config of DeepLab2 parses. For the families that are implemented, `load_config` then fills in what DeepLab2
infers from names (see `explicit_fields`) and checks the result, so that mistakes surface before anything is built.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from absl import logging
from google.protobuf import descriptor, text_format

from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2

FAMILY_NAMES = {
    "deeplab_v3": "DeepLabV3",
    "deeplab_v3_plus": "DeepLabV3+",
    "panoptic_deeplab": "Panoptic-DeepLab",
    "motion_deeplab": "Motion-DeepLab",
    "vip_deeplab": "ViP-DeepLab",
    "max_deeplab": "MaX-DeepLab",
    None: "none",
}
KMAX_PREFIX = "kmax_"
SUPPORTED_BACKBONES = ("kmax_resnet50",)
SUPPORTED = "supported are max_deeplab models on the kMaX skeleton, with backbone.name one of: " + ", ".join(
    SUPPORTED_BACKBONES
)
UPDATE_RULES = ("kmax",)
OPTIMIZERS = ("adam", "adamw", "sgd")
LEARNING_POLICIES = ("poly", "cosine")


def load_config(path: str, overrides: Iterable[str] = ()) -> config_pb2.ExperimentOptions:
    """Reads the experiment config at `path`.

    Args:
        path: a text-format `ExperimentOptions`, DeepLab2's or ours.
        overrides: "field.sub_field=value" strings applied on top; repeated fields take "1,2,3", replacing all values.

    Returns:
        The config. Where its model is supported, all fields DeepLab2 infers are set and the config has been checked.

    Raises:
        ConfigError: naming the file, and the line, field or override at fault.
    """
    config = parse_config(path)
    for override in overrides:
        apply_override(config, override)
    if unsupported_reason(config) is None:
        for note in explicit_fields(config):
            logging.info("%s: %s", path, note)
        check_config(config, path)
    return config


def parse_config(path: str) -> config_pb2.ExperimentOptions:
    """The text proto at `path` as it stands: no override, nothing filled in, nothing checked beyond its syntax."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the config file {path!r}: {error}") from error
    try:
        return text_format.Parse(text, config_pb2.ExperimentOptions())
    except text_format.ParseError as error:
        line = error.GetLine()
        source = text.splitlines()[line - 1].strip() if line and line <= len(text.splitlines()) else ""
        message = str(error).split(" : ", 1)[-1].replace('"deeplab2_kmax.', '"')
        where = f"{path}:{line}" if line else path
        raise ConfigError(f"{where}: {message}" + (f"\n    {source}" if source else "")) from error


def config_to_text(config: config_pb2.ExperimentOptions) -> str:
    """The config as text that `load_config` reads back."""
    return text_format.MessageToString(config)


# Overrides -----------------------------------------------------------------------------------------------------------


def apply_override(config: config_pb2.ExperimentOptions, override: str) -> None:
    """Sets one field of `config` in place from a "field.sub_field=value" string."""
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"override {override!r}: expected field.sub_field=value")
    message = config
    *parents, leaf = path.strip().split(".")
    for name in parents:
        field = _field(message, name, override)
        if field.message_type is None or field.label == field.LABEL_REPEATED:
            raise ConfigError(f"override {override!r}: {name} has no sub-fields")
        message = getattr(message, name)
    field = _field(message, leaf, override)
    if field.message_type is not None:
        raise ConfigError(
            f"override {override!r}: {leaf} is a {field.message_type.name}; set one of its fields:"
            f" {', '.join(field.message_type.fields_by_name)}"
        )
    _assign(message, field, value.strip(), override)


def _field(message, name: str, override: str) -> descriptor.FieldDescriptor:
    fields = message.DESCRIPTOR.fields_by_name
    if name not in fields:
        raise ConfigError(
            f"override {override!r}: {message.DESCRIPTOR.name} has no field {name!r}; it has: {', '.join(fields)}"
        )
    return fields[name]


def _assign(message, field: descriptor.FieldDescriptor, value: str, override: str) -> None:
    quoted = field.type == field.TYPE_STRING
    repeated = field.label == field.LABEL_REPEATED
    values = [part.strip() for part in value.split(",") if part.strip()] if repeated else [value]
    message.ClearField(field.name)
    lines = [f"{field.name}: {text_format_quote(item) if quoted else item}" for item in values]
    try:
        text_format.Merge("\n".join(lines), message)
    except text_format.ParseError as error:
        kind = field.enum_type.name if field.enum_type else _TYPE_NAMES.get(field.type, "another type")
        raise ConfigError(f"override {override!r}: {field.name} expects {kind}, got {value!r}") from error


_TYPE_NAMES = {
    descriptor.FieldDescriptor.TYPE_BOOL: "true or false",
    descriptor.FieldDescriptor.TYPE_FLOAT: "a number",
    descriptor.FieldDescriptor.TYPE_INT32: "an integer",
    descriptor.FieldDescriptor.TYPE_INT64: "an integer",
}


def text_format_quote(value: str) -> str:
    """`value` as a quoted string of the text format."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


# What DeepLab2 infers ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Inferred:
    """Architecture choices that DeepLab2 takes from a word in the data set's name."""

    num_mask_slots: int
    high_resolution_output_stride: int
    use_auxiliary_semantic_decoder: bool
    transformer_decoder_drop_path_keep_prob: float


_INFERRED_FROM_DATASET = {
    "cityscapes": _Inferred(256, 2, False, 0.8),
    "coco": _Inferred(128, 4, True, 0.8),
    "ade20k": _Inferred(128, 4, True, 1.0),
}
_RESNET50 = {"stage_blocks": (3, 4, 6, 3), "stage_filters": (64, 128, 256, 512), "stem_channels": 64}
_PIXEL_DECODER = {
    "filters": (512, 256, 128, 64, 32),
    "num_blocks": (1, 5, 1, 1, 1),
    "block_type": ("axial", "axial", "bottleneck", "bottleneck", "bottleneck"),
}


def explicit_fields(config: config_pb2.ExperimentOptions) -> list[str]:
    """Sets, in place, every architecture field that the config leaves to DeepLab2's inference.

    Returns:
        One sentence for each group of fields that was filled in; empty where the config was explicit.
    """
    notes = []
    max_deeplab = config.model_options.max_deeplab
    dataset = config.train_dataset_options.dataset
    word = next((word for word in _INFERRED_FROM_DATASET if word in dataset), "coco")
    inferred = dataclasses.asdict(_INFERRED_FROM_DATASET[word])
    if filled := _fill(max_deeplab, inferred):
        notes.append(f"inferred from the data set name {dataset!r}, as DeepLab2 does: {filled}")
    if filled := _fill(config.model_options.backbone, _RESNET50):
        notes.append(f"ResNet-50 is {filled}")
    stages = 4 if max_deeplab.high_resolution_output_stride == 4 else 5
    if filled := _fill(max_deeplab.pixel_decoder, {name: values[:stages] for name, values in _PIXEL_DECODER.items()}):
        notes.append(f"pixel decoder: {filled}")
    if filled := _fill(max_deeplab.transformer_decoder, {"num_blocks": (2, 2, 2)}):
        notes.append(f"transformer decoder: {filled}")
    return notes


def _fill(message, values: dict) -> str:
    """Sets those fields of `message` that are not set; returns them as text."""
    filled = []
    for name, value in values.items():
        if isinstance(value, tuple):
            if getattr(message, name):
                continue
            getattr(message, name).extend(value)
        else:
            if message.HasField(name):
                continue
            setattr(message, name, value)
        filled.append(f"{name} = {value}")
    return ", ".join(filled)


# Checks --------------------------------------------------------------------------------------------------------------


def unsupported_reason(config: config_pb2.ExperimentOptions) -> str | None:
    """Why this config's model cannot be built here, or None where it can."""
    family = config.model_options.WhichOneof("meta_architecture")
    backbone = config.model_options.backbone.name
    if family != "max_deeplab":
        return f"model_options.{family or 'meta_architecture'}: {FAMILY_NAMES[family]} is not implemented; {SUPPORTED}"
    if backbone not in SUPPORTED_BACKBONES:
        return f"model_options.backbone.name: {backbone!r} is not implemented; {SUPPORTED}"
    return None


def require_supported(config: config_pb2.ExperimentOptions) -> None:
    """Raises ConfigError, saying what is supported, where this config's model cannot be built here."""
    reason = unsupported_reason(config)
    if reason:
        raise ConfigError(reason)


def check_config(config: config_pb2.ExperimentOptions, path: str = "config") -> None:
    """Raises ConfigError listing every contradiction found; `path` is named in the message."""
    problems = [*_model_problems(config), *_trainer_problems(config)]
    for name in ("train_dataset_options", "eval_dataset_options"):
        if config.HasField(name):
            problems += [f"{name}.{problem}" for problem in _dataset_problems(config, getattr(config, name))]
    if problems:
        raise ConfigError(f"{path}: " + "\n    ".join(problems))


def _dataset_problems(config, options) -> list[str]:
    problems = []
    try:
        dataset = load_dataset(options.dataset)
    except ConfigError as error:
        return [f"dataset: {error}"]
    channels = config.model_options.max_deeplab.auxiliary_semantic_head.output_channels
    if channels != dataset.num_classes:
        problems.append(
            f"dataset: {options.dataset} has {dataset.num_classes} classes, but"
            f" model_options.max_deeplab.auxiliary_semantic_head.output_channels is {channels}"
        )
    if options.use_two_frames or options.use_next_frame:
        problems.append("use_two_frames, use_next_frame: video input is not supported")
    stride = config.model_options.max_deeplab.high_resolution_output_stride
    crop = list(options.crop_size)
    if len(crop) != 2 or min(crop) < 1:
        return [*problems, f"crop_size: expected height and width, got {crop}"]
    for size in crop:
        if (size - 1) % stride:
            lower = (size - 1) // stride * stride + 1
            problems.append(
                f"crop_size: {size} is not a multiple of the output stride {stride} plus one;"
                f" the nearest such sizes are {lower} and {lower + stride}"
            )
    problems += _resize_problems(options, crop)
    if options.batch_size < 1:
        problems.append(f"batch_size: expected at least 1, got {options.batch_size}")
    return problems


def _resize_problems(options, crop: list[int]) -> list[str]:
    problems = []
    for name in ("min_resize_value", "max_resize_value"):
        if len(getattr(options, name)) > 2:
            problems.append(f"{name}: expected one or two values, got {list(getattr(options, name))}")
    largest = list(options.max_resize_value)
    if len(largest) == 1:
        largest = largest * 2
    if len(largest) == 2 and min(largest) > 0 and any(side > limit for side, limit in zip(largest, crop)):
        problems.append(f"max_resize_value: {largest} exceeds crop_size {crop}")
    scales = options.augmentations
    if not 0 < scales.min_scale_factor <= scales.max_scale_factor:
        problems.append(
            "augmentations: expected 0 < min_scale_factor <= max_scale_factor, got"
            f" {scales.min_scale_factor:g} and {scales.max_scale_factor:g}"
        )
    return problems


def _model_problems(config) -> list[str]:
    problems = []
    backbone = config.model_options.backbone
    max_deeplab = config.model_options.max_deeplab
    where = "model_options.max_deeplab"
    for name in ("stage_blocks", "stage_filters"):
        if len(getattr(backbone, name)) != 4:
            problems.append(f"model_options.backbone.{name}: expected 4 values, got {list(getattr(backbone, name))}")
    stride = max_deeplab.high_resolution_output_stride
    if stride not in (2, 4):
        problems.append(f"{where}.high_resolution_output_stride: expected 2 or 4, got {stride}")
    stages = 5 if stride == 2 else 4
    for name in ("filters", "num_blocks", "block_type"):
        values = list(getattr(max_deeplab.pixel_decoder, name))
        if len(values) != stages:
            problems.append(f"{where}.pixel_decoder.{name}: expected {stages} values at stride {stride}, got {values}")
    for block_type in max_deeplab.pixel_decoder.block_type:
        if block_type not in ("axial", "bottleneck"):
            problems.append(f"{where}.pixel_decoder.block_type: expected axial or bottleneck, got {block_type!r}")
    return problems + _transformer_decoder_problems(max_deeplab, f"{where}.transformer_decoder")


def _transformer_decoder_problems(max_deeplab, where: str) -> list[str]:
    problems = []
    decoder = max_deeplab.transformer_decoder
    if len(decoder.num_blocks) != 3:
        problems.append(f"{where}.num_blocks: expected 3 values, got {list(decoder.num_blocks)}")
    if decoder.update_rule not in UPDATE_RULES:
        problems.append(f"{where}.update_rule: expected one of {UPDATE_RULES}, got {decoder.update_rule!r}")
    for name in ("key_channels", "value_channels"):
        if getattr(decoder, name) % decoder.num_heads:
            problems.append(
                f"{where}.{name}: {getattr(decoder, name)} is not divisible by num_heads {decoder.num_heads}"
            )
    keep = max_deeplab.transformer_decoder_drop_path_keep_prob
    if not 0 < keep <= 1:
        problems.append(f"{where}_drop_path_keep_prob: expected a value in (0, 1], got {keep:g}")
    return problems


def _trainer_problems(config) -> list[str]:
    problems = []
    solver = config.trainer_options.solver_options
    where = "trainer_options.solver_options"
    if solver.optimizer not in OPTIMIZERS:
        problems.append(f"{where}.optimizer: expected one of {OPTIMIZERS}, got {solver.optimizer!r}")
    if solver.learning_policy not in LEARNING_POLICIES:
        problems.append(f"{where}.learning_policy: expected one of {LEARNING_POLICIES}, got {solver.learning_policy!r}")
    for name in ("steps_per_loop", "save_checkpoints_steps", "save_summaries_steps"):
        if getattr(config.trainer_options, name) < 1:
            problems.append(f"trainer_options.{name}: expected at least 1")
    post = config.evaluator_options.transformer_post_processing
    if post not in ("pixelwise", "maskwise"):
        problems.append(f"evaluator_options.transformer_post_processing: expected pixelwise or maskwise, got {post!r}")
    return problems
