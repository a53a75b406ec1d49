"""What the name of a pixel encoder stands for.

`ENCODERS` is the one place that reads architecture out of `backbone.name`: a row says which file of
`model/pixel_encoders` builds the encoder, and with which explicit fields of `BackboneOptions`. A new encoder is a new
row, and a new file where its kind is new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from deeplab2_kmax.protos import model_pb2


@dataclasses.dataclass(frozen=True)
class Encoder:
    """One row of the table.

    Attributes:
        kind: which architecture builds it, e.g. "resnet"; "dual_path" is MaX-DeepLab's skeleton as a whole.
        fields: explicit fields of `BackboneOptions` by name, filled in where a config leaves them out. A tuple is a
            repeated field, and says how many values the field needs.
        listed: whether messages that list the encoders name it.
        decoder: the same for `TransformerDecoderOptions`, where the name says something of the decoder layers too.
    """

    kind: str
    fields: Mapping[str, bool | int | float | str | tuple[int, ...]]
    listed: bool = True
    decoder: Mapping[str, int | str] = dataclasses.field(default_factory=dict)

    @property
    def has_own_skeleton(self) -> bool:
        """Whether decoder layers stand inside it, so that it takes no pixel decoder and no transformer decoder."""
        return self.kind == "dual_path"


def _axial_resnet(*stage_blocks: int) -> Encoder:
    fields = {"stage_blocks": stage_blocks, "stage_filters": (64, 128, 256, 512), "stem_channels": 64}
    return Encoder("axial_resnet", fields)


def _convnext(stage_blocks: tuple[int, ...], first_filters: int) -> Encoder:
    filters = tuple(first_filters * 2**stage for stage in range(4))
    return Encoder("convnext", {"stage_blocks": stage_blocks, "stage_filters": filters})


def _moat(stem_channels: int, stage_blocks: tuple[int, ...], first_filters: int) -> Encoder:
    filters = tuple(first_filters * 2**stage for stage in range(4))
    fields = {"stem_channels": stem_channels, "stage_blocks": stage_blocks, "stage_filters": filters}
    return Encoder("moat", {**fields, "position_embedding": True})


def _moats() -> dict[str, Encoder]:
    """MOAT under its own name and under DeepLab2's, which tell how the pretrained weights were made."""
    sizes = {
        "moat0": ("pretrain_224", "1k", 64, (2, 3, 7, 2), 96),
        "moat1": ("pretrain_224", "1k", 64, (2, 6, 14, 2), 96),
        "moat2": ("finetune_384", "22k", 128, (2, 6, 14, 2), 128),
        "moat3": ("finetune_512", "22k", 160, (2, 12, 28, 2), 160),
        "moat4": ("finetune_512", "22k", 256, (2, 12, 28, 2), 256),
        "tiny_moat0": ("pretrain_256", "1k", 32, (2, 3, 7, 2), 32),
        "tiny_moat1": ("pretrain_256", "1k", 40, (2, 3, 7, 2), 40),
        "tiny_moat2": ("pretrain_256", "1k", 56, (2, 3, 7, 2), 56),
        "tiny_moat3": ("pretrain_256", "1k", 80, (2, 3, 7, 2), 80),
    }
    rows = {}
    for name, (training, images, *size) in sizes.items():
        encoder = rows[f"kmax_{name}"] = _moat(*size)
        rows[f"kmax_{name}_{training}_{images}"] = dataclasses.replace(encoder, listed=False)
        rows[f"kmax_{name}_{training}_no_pe_{images}"] = Encoder(
            encoder.kind, {**encoder.fields, "position_embedding": False}, listed=False
        )
    return rows


def _max_s(update_rule: str, *stage_blocks: int) -> Encoder:
    fields = {
        "stage_blocks": stage_blocks,
        "stage_filters": (64, 128, 256, 512),
        "stem_channels": 64,
        "stem": "inception",
        "first_stage_blocks": 0,
        "convolution_block": "bottleneck",
        "axial_expansion": 1,
        "drop_path_beyond_stride": 16,
        "decoder_layers_beyond_stride": 32,
        "backbone_decoder_stacks": 0,
        "backbone_decoder_blocks": 1,
        "extra_decoder_stacks": 0,
        "extra_decoder_blocks": 1,
    }
    return Encoder("dual_path", fields, decoder={"update_rule": update_rule})


def _max_l() -> Encoder:
    fields = {
        "stage_blocks": (3, 6, 3, 3),
        "stage_filters": (64, 128, 256, 512),
        "stem_channels": 64,
        "stem": "conv3",
        "first_stage_blocks": 3,
        "convolution_block": "basic",
        "axial_expansion": 2,
        "drop_path_beyond_stride": 4,
        "decoder_layers_beyond_stride": 16,
        "backbone_decoder_stacks": 1,
        "backbone_decoder_blocks": 1,
        "extra_decoder_stacks": 1,
        "extra_decoder_blocks": 3,
    }
    decoder = {
        "update_rule": "max",
        "center_channels": 512,
        "bottleneck_channels": 512,
        "key_channels": 256,
        "value_channels": 512,
    }
    return Encoder("dual_path", fields, decoder=decoder)


ENCODERS: dict[str, Encoder] = {
    "kmax_resnet50": Encoder(
        "resnet", {"stage_blocks": (3, 4, 6, 3), "stage_filters": (64, 128, 256, 512), "stem_channels": 64}
    ),
    "kmax_axial_resnet50": _axial_resnet(3, 4, 6, 3),
    "kmax_axial_resnet104": _axial_resnet(3, 4, 24, 3),
    "kmax_convnext_tiny": _convnext((3, 3, 9, 3), 96),
    "kmax_convnext_small": _convnext((3, 3, 27, 3), 96),
    "kmax_convnext_base": _convnext((3, 3, 27, 3), 128),
    "kmax_convnext_large": _convnext((3, 3, 27, 3), 192),
    "kmax_convnext_xlarge": _convnext((3, 3, 27, 3), 256),
    **_moats(),
    "max_deeplab_s": _max_s("max", 3, 4, 6, 3),
    "max_deeplab_l": _max_l(),
    "cmt_deeplab_axial_r50": _max_s("cmt", 3, 4, 6, 3),
    "cmt_deeplab_axial_r104": _max_s("cmt", 3, 4, 24, 3),
}


def explicit_backbone_fields(backbone: model_pb2.ModelOptions.BackboneOptions) -> dict:
    """The explicit fields that the name of `backbone` stands for, scaled by its width and depth multipliers.

    DeepLab2 leaves the multipliers out of account on the kMaX skeleton.
    """
    encoder = ENCODERS[backbone.name]
    fields = dict(encoder.fields)
    if encoder.has_own_skeleton:
        width, depth = backbone.backbone_width_multiplier, backbone.backbone_layer_multiplier
        fields["stem_channels"] = int(fields["stem_channels"] * backbone.stem_width_multiplier)
        fields["stage_filters"] = tuple(round(filters * width) for filters in fields["stage_filters"])
        fields["stage_blocks"] = tuple(int(blocks * depth) for blocks in fields["stage_blocks"])
    return fields
