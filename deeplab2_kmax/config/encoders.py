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
    """

    kind: str
    fields: Mapping[str, bool | int | float | str | tuple[int, ...]]


def _axial_resnet(*stage_blocks: int) -> Encoder:
    fields = {"stage_blocks": stage_blocks, "stage_filters": (64, 128, 256, 512), "stem_channels": 64}
    return Encoder("axial_resnet", fields)


def _convnext(stage_blocks: tuple[int, ...], first_filters: int) -> Encoder:
    filters = tuple(first_filters * 2**stage for stage in range(4))
    return Encoder("convnext", {"stage_blocks": stage_blocks, "stage_filters": filters})


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
}
