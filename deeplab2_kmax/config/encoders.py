"""What the name of a pixel encoder stands for.

`ENCODERS` is the one place that reads architecture out of `backbone.name`: a row says which file of
`model/pixel_encoders` builds the encoder, and with which explicit fields of `BackboneOptions`. A new encoder is a new
row, and a new file where its kind is new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Encoder:
    """One row of the table.

    Attributes:
        kind: which architecture builds it, e.g. "resnet".
        fields: explicit fields of `BackboneOptions` by name, filled in where a config leaves them out. A tuple is a
            repeated field, and says how many values the field needs.
        listed: whether messages that list the encoders name it.
    """

    kind: str
    fields: Mapping[str, bool | int | float | str | tuple[int, ...]]
    listed: bool = True


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
}
