"""Checks a whole config for contradictions, so that mistakes surface before anything is built."""

from __future__ import annotations

from deeplab2_kmax.config.dual_path_checks import dual_path_problems
from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.config.explicit import num_pixel_decoder_stages
from deeplab2_kmax.config.update_rules import update_rule_problems
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2

OPTIMIZERS = ("adam", "adamw", "sgd", "radam", "lamb")
LEARNING_POLICIES = ("poly", "cosine")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def check_config(config: config_pb2.ExperimentOptions, path: str = "config") -> None:
    """Raises ConfigError listing every contradiction found; `path` is named in the message."""
    problems = [*_model_problems(config), *update_rule_problems(config), *_trainer_problems(config)]
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
    problems = _backbone_problems(config.model_options.backbone)
    precision = config.model_options.precision
    if precision not in PRECISIONS:
        problems.append(f"model_options.precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    max_deeplab = config.model_options.max_deeplab
    where = "model_options.max_deeplab"
    if ENCODERS[config.model_options.backbone.name].has_own_skeleton:
        return problems + dual_path_problems(config.model_options)
    stride = max_deeplab.high_resolution_output_stride
    if stride not in (2, 4):
        problems.append(f"{where}.high_resolution_output_stride: expected 2 or 4, got {stride}")
    problems += _pixel_decoder_problems(max_deeplab, f"{where}.pixel_decoder")
    return problems + _transformer_decoder_problems(max_deeplab, f"{where}.transformer_decoder")


def _pixel_decoder_problems(max_deeplab, where: str) -> list[str]:
    problems = []
    decoder = max_deeplab.pixel_decoder
    stages = num_pixel_decoder_stages(max_deeplab)
    stride = max_deeplab.high_resolution_output_stride
    reason = "as encoder_features" if decoder.encoder_features else f"at stride {stride}"
    for name in ("filters", "num_blocks", "block_type"):
        values = list(getattr(decoder, name))
        if len(values) != stages:
            problems.append(f"{where}.{name}: expected {stages} values {reason}, got {values}")
    for block_type in decoder.block_type:
        if block_type not in ("axial", "bottleneck"):
            problems.append(f"{where}.block_type: expected axial or bottleneck, got {block_type!r}")
    known = [f"stage{number}" for number in range(1, 6)]
    for feature in decoder.encoder_features:
        if feature not in known:
            problems.append(f"{where}.encoder_features: expected some of {', '.join(known)}, got {feature!r}")
    return problems


def _backbone_problems(backbone) -> list[str]:
    problems = []
    where = "model_options.backbone"
    for name, value in ENCODERS[backbone.name].fields.items():
        if isinstance(value, tuple) and len(getattr(backbone, name)) != len(value):
            came = list(getattr(backbone, name))
            problems.append(f"{where}.{name}: {backbone.name} needs {len(value)} values, got {came}")
    choices = {name for encoder in ENCODERS.values() for name in encoder.fields}
    for field, _ in backbone.ListFields():
        if field.name in choices - ENCODERS[backbone.name].fields.keys():
            problems.append(f"{where}.{field.name}: {backbone.name} has no such choice; it would be ignored")
    for name in ("stem_max_pool", "activated_features"):
        if getattr(backbone, name) and ENCODERS[backbone.name].kind != "resnet":
            problems.append(f"{where}.{name}: a choice of ResNet; {backbone.name} has none")
    keep = backbone.drop_path_keep_prob
    if not 0 < keep <= 1:
        problems.append(f"{where}.drop_path_keep_prob: expected a value in (0, 1], got {keep:g}")
    return problems


def _transformer_decoder_problems(max_deeplab, where: str) -> list[str]:
    problems = []
    decoder = max_deeplab.transformer_decoder
    if len(decoder.num_blocks) != 3:
        problems.append(f"{where}.num_blocks: expected 3 values, got {list(decoder.num_blocks)}")
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
