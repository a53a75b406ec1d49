"""The rules for `ModelOptions`, apart from those of the update rule (see `update_rules`).

Problems are sentences that start with the path of the field, so that all of a config's can be listed together.
"""

from __future__ import annotations

from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.config.explicit import num_pixel_decoder_stages
from deeplab2_kmax.config.problems import choice_problems
from deeplab2_kmax.protos import model_pb2
from deeplab2_kmax.wording import counted

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")

_BACKBONE = "model_options.backbone"
_MAX_DEEPLAB = "model_options.max_deeplab"
# Fields of the backbone on MaX-DeepLab's skeleton.
_DUAL_PATH_CHOICES: dict[str, tuple[str | int, ...]] = {
    "stem": ("inception", "conv3"),
    "convolution_block": ("bottleneck", "basic"),
    "drop_path_schedule": ("constant", "linear"),
    "output_stride": (8, 16, 32),
}
_HEADS_OF_AXIAL_ATTENTION = 8
# DeepLab2's names of the encoder's stages, which the semantic decoder takes as skips.
_SKIPS = tuple(f"res{stage}" for stage in range(1, 6))


def model_problems(options: model_pb2.ModelOptions) -> list[str]:
    """What contradicts itself in a supported model whose fields are explicit."""
    problems = _backbone_problems(options.backbone)
    problems += choice_problems("model_options.precision", options.precision, PRECISIONS)
    problems += _semantic_skip_problems(options.max_deeplab)
    if ENCODERS[options.backbone.name].has_own_skeleton:
        return problems + _dual_path_problems(options)
    stride = options.max_deeplab.high_resolution_output_stride
    if stride not in (2, 4):
        problems.append(f"{_MAX_DEEPLAB}.high_resolution_output_stride: expected 2 or 4, got {stride}")
    return [
        *problems,
        *_pixel_decoder_problems(options.max_deeplab),
        *_transformer_decoder_problems(options.max_deeplab),
    ]


def _backbone_problems(backbone: model_pb2.ModelOptions.BackboneOptions) -> list[str]:
    problems = []
    encoder = ENCODERS[backbone.name]
    for name, value in encoder.fields.items():
        if isinstance(value, tuple) and len(getattr(backbone, name)) != len(value):
            got = list(getattr(backbone, name))
            problems.append(f"{_BACKBONE}.{name}: {backbone.name} needs {counted(len(value), 'value')}, got {got}")
    of_any_encoder = {name for each in ENCODERS.values() for name in each.fields}
    for field, _ in backbone.ListFields():
        if field.name in of_any_encoder - encoder.fields.keys():
            problems.append(f"{_BACKBONE}.{field.name}: {backbone.name} has no such choice; it would be ignored")
    for name in ("stem_max_pool", "activated_features"):
        if getattr(backbone, name) and encoder.kind != "resnet":
            problems.append(f"{_BACKBONE}.{name}: only ResNet has this choice; expected false for {backbone.name}")
    return problems


def _semantic_skip_problems(max_deeplab: model_pb2.ModelOptions.MaXDeepLabOptions) -> list[str]:
    """Skips that the encoder does not have; where there is no semantic decoder, nobody reads them."""
    problems: list[str] = []
    for skip in max_deeplab.auxiliary_low_level if max_deeplab.use_auxiliary_semantic_decoder else ():
        problems += choice_problems(f"{_MAX_DEEPLAB}.auxiliary_low_level.feature_key", skip.feature_key, _SKIPS)
    return problems


def _pixel_decoder_problems(max_deeplab: model_pb2.ModelOptions.MaXDeepLabOptions) -> list[str]:
    problems: list[str] = []
    where = f"{_MAX_DEEPLAB}.pixel_decoder"
    decoder = max_deeplab.pixel_decoder
    stages = num_pixel_decoder_stages(max_deeplab)
    stride = max_deeplab.high_resolution_output_stride
    reason = "as encoder_features" if decoder.encoder_features else f"at stride {stride}"
    for name in ("filters", "num_blocks", "block_type"):
        values = list(getattr(decoder, name))
        if len(values) != stages:
            problems.append(f"{where}.{name}: expected {counted(stages, 'value')} {reason}, got {values}")
    for block_type in decoder.block_type:
        problems += choice_problems(f"{where}.block_type", block_type, ("axial", "bottleneck"))
    known = [f"stage{number}" for number in range(1, 6)]
    for feature in decoder.encoder_features:
        problems += choice_problems(f"{where}.encoder_features", feature, known)
    return problems


def _transformer_decoder_problems(max_deeplab: model_pb2.ModelOptions.MaXDeepLabOptions) -> list[str]:
    problems = []
    where = f"{_MAX_DEEPLAB}.transformer_decoder"
    decoder = max_deeplab.transformer_decoder
    if len(decoder.num_blocks) != 3:
        problems.append(f"{where}.num_blocks: expected 3 values, got {list(decoder.num_blocks)}")
    problems += _indivisible_channels(decoder, decoder.num_heads, f"num_heads {decoder.num_heads}")
    return problems


def _indivisible_channels(
    decoder: model_pb2.ModelOptions.TransformerDecoderOptions, divisor: int, reason: str
) -> list[str]:
    """Attention splits keys and values evenly over its heads."""
    return [
        f"{_MAX_DEEPLAB}.transformer_decoder.{name}: {getattr(decoder, name)} is not divisible by {reason}"
        for name in ("key_channels", "value_channels")
        if getattr(decoder, name) % divisor
    ]


def _dual_path_problems(options: model_pb2.ModelOptions) -> list[str]:
    """What contradicts itself in a model on MaX-DeepLab's skeleton."""
    backbone = options.backbone
    problems = []
    for name, choices in _DUAL_PATH_CHOICES.items():
        problems += choice_problems(f"{_BACKBONE}.{name}", getattr(backbone, name), choices)
    if backbone.use_squeeze_and_excite or backbone.use_sac_beyond_stride > 0:
        problems.append(f"{_BACKBONE}: use_squeeze_and_excite and use_sac_beyond_stride are not implemented")
    # Axial attention stands in the stages from stride 16 on.
    for filters in backbone.stage_filters[2:]:
        if filters * backbone.axial_expansion % _HEADS_OF_AXIAL_ATTENTION:
            problems.append(
                f"{_BACKBONE}.stage_filters: {filters} is not divisible by the {_HEADS_OF_AXIAL_ATTENTION} heads of"
                " axial attention"
            )
    stride = options.max_deeplab.high_resolution_output_stride
    if stride != 4:
        problems.append(f"{_MAX_DEEPLAB}.high_resolution_output_stride: {backbone.name} has 4, got {stride}")
    if options.max_deeplab.transformer_decoder.deep_supervision:
        problems.append(
            f"{_MAX_DEEPLAB}.transformer_decoder.deep_supervision: expected false, got true; {backbone.name} supervises"
            " its final prediction only"
        )
    return problems + _dual_path_layer_problems(options)


def _dual_path_layer_problems(options: model_pb2.ModelOptions) -> list[str]:
    beyond = options.backbone.decoder_layers_beyond_stride
    if beyond not in (16, 32):
        return [f"{_BACKBONE}.decoder_layers_beyond_stride: expected 16 or 32, got {beyond}"]
    decoder = options.max_deeplab.transformer_decoder
    # With 16, there are layers behind the stage that starts at stride 8 too. They have half the channels, which the
    # same number of heads has to share evenly.
    shares = 2 * decoder.num_heads if beyond == 16 else decoder.num_heads
    return _indivisible_channels(decoder, shares, str(shares))
