"""What the name of a pixel encoder stands for.

`ENCODERS` is the only place that derives architecture from `backbone.name`. A row says which file of
`model/pixel_encoders` builds the encoder, and which explicit fields of `BackboneOptions` the name stands for. A new
encoder is a new row, and a new file where its kind is new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Union

from deeplab2_kmax.protos import model_pb2

# The value of a field of a proto message; a tuple is that of a repeated field.
FieldValue = Union[bool, int, float, str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Encoder:
    """One row of the table. Fields that a config leaves out are filled in from here.

    Attributes:
        kind: which architecture builds it, e.g. "resnet"; "dual_path" is MaX-DeepLab's skeleton as a whole.
        stage_blocks: `BackboneOptions.stage_blocks`; its length is the number of values that the field needs.
        stage_filters: `BackboneOptions.stage_filters`, likewise.
        stem_channels: `BackboneOptions.stem_channels`; None where the kind derives them from the stages.
        choices: fields of `BackboneOptions` that only this kind has.
        decoder: fields of `TransformerDecoderOptions`, where the name also says something about the decoder layers.
        listed: whether messages that list the encoders name it.
    """

    kind: str
    stage_blocks: tuple[int, ...]
    stage_filters: tuple[int, ...]
    stem_channels: int | None = None
    choices: Mapping[str, bool | int | str] = dataclasses.field(default_factory=dict)
    decoder: Mapping[str, int | str] = dataclasses.field(default_factory=dict)
    listed: bool = True

    @property
    def fields(self) -> dict[str, FieldValue]:
        """All explicit fields of `BackboneOptions` that the name stands for."""
        fields: dict[str, FieldValue] = {"stage_blocks": self.stage_blocks, "stage_filters": self.stage_filters}
        if self.stem_channels is not None:
            fields["stem_channels"] = self.stem_channels
        return {**fields, **self.choices}

    @property
    def has_own_skeleton(self) -> bool:
        """Whether decoder layers stand inside it, so that it takes no pixel decoder and no transformer decoder."""
        return self.kind == "dual_path"


_RESNET_FILTERS = (64, 128, 256, 512)
_RESNET_STEM = 64


def _axial_resnet(*stage_blocks: int) -> Encoder:
    return Encoder("axial_resnet", stage_blocks, _RESNET_FILTERS, _RESNET_STEM)


def _doubling(first_filters: int) -> tuple[int, int, int, int]:
    """Channels of four stages, each with twice as many as the one before."""
    return first_filters, 2 * first_filters, 4 * first_filters, 8 * first_filters


def _convnext(stage_blocks: tuple[int, ...], first_filters: int) -> Encoder:
    return Encoder("convnext", stage_blocks, _doubling(first_filters))


def _moats() -> dict[str, Encoder]:
    """MOAT under its own name, and under DeepLab2's names, which also tell how the pretrained weights were made."""
    # Pretraining and its images (ImageNet-1K or -22K) in DeepLab2's name, stem channels, blocks, first filters.
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
    for name, (training, images, stem_channels, stage_blocks, first_filters) in sizes.items():
        encoder = Encoder(
            "moat", stage_blocks, _doubling(first_filters), stem_channels, choices={"position_embedding": True}
        )
        unlisted = dataclasses.replace(encoder, listed=False)
        rows[f"kmax_{name}"] = encoder
        rows[f"kmax_{name}_{training}_{images}"] = unlisted
        rows[f"kmax_{name}_{training}_no_pe_{images}"] = dataclasses.replace(
            unlisted, choices={"position_embedding": False}
        )
    return rows


def _max_s(update_rule: str, *stage_blocks: int) -> Encoder:
    choices: dict[str, bool | int | str] = {
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
    return Encoder(
        "dual_path", stage_blocks, _RESNET_FILTERS, _RESNET_STEM, choices, decoder={"update_rule": update_rule}
    )


def _max_l() -> Encoder:
    choices: dict[str, bool | int | str] = {
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
    decoder: dict[str, int | str] = {
        "update_rule": "max",
        "center_channels": 512,
        "bottleneck_channels": 512,
        "key_channels": 256,
        "value_channels": 512,
    }
    return Encoder("dual_path", (3, 6, 3, 3), _RESNET_FILTERS, _RESNET_STEM, choices, decoder)


ENCODERS: dict[str, Encoder] = {
    "kmax_resnet50": Encoder("resnet", (3, 4, 6, 3), _RESNET_FILTERS, _RESNET_STEM),
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


def explicit_backbone_fields(backbone: model_pb2.ModelOptions.BackboneOptions) -> dict[str, FieldValue]:
    """The explicit fields that the name of `backbone` stands for, scaled by its width and depth multipliers."""
    encoder = ENCODERS[backbone.name]
    # DeepLab2 ignores the multipliers on the kMaX skeleton.
    if not encoder.has_own_skeleton:
        return encoder.fields
    width, depth = backbone.backbone_width_multiplier, backbone.backbone_layer_multiplier
    # Rounded for filters, truncated for the others, as in DeepLab2.
    scaled = dataclasses.replace(
        encoder,
        stem_channels=int((encoder.stem_channels or 0) * backbone.stem_width_multiplier),
        stage_filters=tuple(round(filters * width) for filters in encoder.stage_filters),
        stage_blocks=tuple(int(blocks * depth) for blocks in encoder.stage_blocks),
    )
    return scaled.fields
