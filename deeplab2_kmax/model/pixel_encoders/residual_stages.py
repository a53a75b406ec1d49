"""Plans the stages of residual networks: which blocks attend or convolve, stride or dilate, and their drop path.

A stage goes from one nominal stride to the next. "Nominal" because the network may have a smaller output stride. A
stage beyond it does not stride, and its convolutions are dilated instead, so that they see as much of the image
("atrous convolution"; Chen et al., "DeepLab", 2018). All other choices still follow the nominal stride a block starts
from.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tensorflow as tf

from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.regularization import linear_keep_prob
from deeplab2_kmax.model.layers.residual_blocks import AxialBlock, BasicBlock, BottleneckBlock


@dataclasses.dataclass(frozen=True)
class ResidualSettings:
    """What all stages of a network share.

    Attributes:
        activation: "relu" or "gelu".
        output_stride: largest actual stride of a feature: 8, 16 or 32.
        convolution: kind of the blocks without attention, "bottleneck" or "basic".
        axial_beyond_stride: blocks that start from this nominal stride or a larger one attend; 0: none does.
        axial_expansion: key channels of their attention, as a multiple of the stage's filters.
        keep_prob: probability that the last block's residual branch is kept in training.
        keep_schedule: "constant", or "linear": from 1 at the stem to `keep_prob` in the last stage.
        drop_beyond_stride: blocks that start from a smaller nominal stride always keep their branch.
    """

    activation: str = "relu"
    output_stride: int = 32
    convolution: str = "bottleneck"
    axial_beyond_stride: int = 16
    axial_expansion: int = 1
    keep_prob: float = 1.0
    keep_schedule: str = "linear"
    drop_beyond_stride: int = 16

    def keep_prob_at(self, stride: int) -> float:
        """Keep-probability of a block that starts from nominal stride `stride`."""
        if stride < self.drop_beyond_stride:
            return 1.0
        if self.keep_schedule == "constant":
            return self.keep_prob
        # Stride 2 is stage 0 and stride 32 stage 4.
        return linear_keep_prob(self.keep_prob, int(math.log2(stride)) - 1, 4)


@dataclasses.dataclass(frozen=True)
class Stage:
    """The plan of one stage.

    Attributes:
        filters: a quarter of its channels.
        blocks: number of its blocks.
        start: nominal stride of its input.
        stride: nominal stride of its first block; the other blocks have stride 1.
    """

    filters: int
    blocks: int
    start: int
    stride: int = 2

    @property
    def end(self) -> int:
        """Nominal stride of its output, and of the input of all its blocks but the first."""
        return self.start * self.stride

    def start_of(self, block: int) -> int:
        """Nominal stride that block number `block` starts from; blocks are counted from 0."""
        return self.start if block == 0 else self.end


def build_stage(
    stage: Stage, settings: ResidualSettings, normalization: Normalization, name: str
) -> list[tf.keras.layers.Layer]:
    """Makes the blocks of a stage.

    Args:
        stage: the plan.
        settings: what all stages share.
        normalization: settings of the batch norms.
        name: of the stage; block names begin with it.

    Returns:
        Layers from features to features, both before their activation, in order.
    """
    return [
        _build_block(stage, block, settings, normalization, f"{name}_block{block + 1}") for block in range(stage.blocks)
    ]


def _build_block(
    stage: Stage, block: int, settings: ResidualSettings, normalization: Normalization, name: str
) -> tf.keras.layers.Layer:
    start = stage.start_of(block)
    shared: dict[str, Any] = {
        "activation": settings.activation,
        "stride": stage.stride if block == 0 and stage.start < settings.output_stride else 1,
        "keep_prob": settings.keep_prob_at(start),
        "name": name,
    }
    if 0 < settings.axial_beyond_stride <= start:
        keys = settings.axial_expansion * stage.filters
        return AxialBlock(stage.filters, normalization, key_channels=keys, **shared)
    dilation = max(start // settings.output_stride, 1)
    if settings.convolution == "bottleneck":
        return BottleneckBlock(stage.filters, normalization, dilation=dilation, **shared)
    # Dilation stands in for a stride that was left out, so it begins right after the convolution that would have had
    # the stride. That is the first convolution of a stage's first block: the second one is dilated already.
    second = max(stage.end // settings.output_stride, 1)
    return BasicBlock(stage.filters, normalization, dilation=dilation, second_dilation=second, **shared)
