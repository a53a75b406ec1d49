"""Checks of the fields that only MaX-DeepLab's skeleton has."""

from __future__ import annotations

from deeplab2_kmax.protos import model_pb2

_CHOICES = {
    "stem": ("inception", "conv3"),
    "convolution_block": ("bottleneck", "basic"),
    "drop_path_schedule": ("constant", "linear"),
    "output_stride": (8, 16, 32),
}
_AT_LEAST_ONE = ("axial_expansion", "extra_decoder_blocks", "stem_channels")
_HEADS_OF_AXIAL_ATTENTION = 8


def dual_path_problems(options: model_pb2.ModelOptions) -> list[str]:
    """What contradicts itself in a model on MaX-DeepLab's skeleton, one sentence each."""
    backbone, problems = options.backbone, []
    where = "model_options.backbone"
    for name, choices in _CHOICES.items():
        if getattr(backbone, name) not in choices:
            expected = ", ".join(map(str, choices))
            problems.append(f"{where}.{name}: expected one of {expected}; got {getattr(backbone, name)!r}")
    for name in _AT_LEAST_ONE:
        if getattr(backbone, name) < 1:
            problems.append(f"{where}.{name}: expected at least 1, got {getattr(backbone, name)}")
    if backbone.use_squeeze_and_excite or backbone.use_sac_beyond_stride > 0:
        problems.append(f"{where}: use_squeeze_and_excite and use_sac_beyond_stride are not implemented")
    for filters in backbone.stage_filters[2:]:
        if filters * backbone.axial_expansion % _HEADS_OF_AXIAL_ATTENTION:
            problems.append(f"{where}.stage_filters: {filters} is not divisible by the 8 heads of axial attention")
    stride = options.max_deeplab.high_resolution_output_stride
    if stride != 4:
        problems.append(f"model_options.max_deeplab.high_resolution_output_stride: {backbone.name} has 4, got {stride}")
    if options.max_deeplab.transformer_decoder.deep_supervision:
        problems.append(
            f"model_options.max_deeplab.transformer_decoder.deep_supervision: {backbone.name} supervises its final"
            " prediction only; expected false, got true"
        )
    return problems + _layer_problems(options)


def _layer_problems(options: model_pb2.ModelOptions) -> list[str]:
    """Layers behind the stage that starts at stride 8 have half the channels, which heads have to share evenly."""
    beyond = options.backbone.decoder_layers_beyond_stride
    if beyond not in (16, 32):
        return [f"model_options.backbone.decoder_layers_beyond_stride: expected 16 or 32, got {beyond}"]
    decoder = options.max_deeplab.transformer_decoder
    shares = 2 * decoder.num_heads if beyond == 16 else decoder.num_heads
    return [
        f"model_options.max_deeplab.transformer_decoder.{name}: {getattr(decoder, name)} is not divisible by {shares}"
        for name in ("key_channels", "value_channels")
        if getattr(decoder, name) % shares
    ]
