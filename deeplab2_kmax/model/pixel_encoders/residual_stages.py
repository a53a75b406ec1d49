"""From the stride a residual block starts at to the block: attention or convolution, stride or dilation, drop path.

A stage of a residual network goes from one nominal stride to the next. Where the network's output stride is smaller,
the stage does not stride, and its later convolutions are dilated instead ("atrous"; Chen et al., "DeepLab", 2018); all
other choices still follow the nominal stride.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.regularization import linear_keep_prob
from deeplab2_kmax.model.layers.residual_blocks import AxialBlock, BasicBlock, BottleneckBlock


@dataclasses.dataclass(frozen=True)
class ResidualSettings:
    """What all stages of a network share.

    Attributes:
        activation: "relu" or "gelu".
        output_stride: largest stride of a feature: 8, 16 or 32.
        convolution: block where there is no attention, "bottleneck" or "basic".
        axial_beyond_stride: blocks that start from this nominal stride or a larger one attend; 0: none does.
        axial_expansion: key channels of their attention, as a multiple of the stage's filters.
        keep_prob: probability that the last block's residual branch is kept in training.
        keep_schedule: "constant", or "linear": from 1 at the stem to `keep_prob` in the last stage.
        drop_beyond_stride: blocks that start from a smaller nominal stride keep their branch always.
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
        """Keep-probability of a block that starts from nominal `stride`."""
        if stride < self.drop_beyond_stride:
            return 1.0
        if self.keep_schedule == "constant":
            return self.keep_prob
        return linear_keep_prob(self.keep_prob, int(math.log2(stride)) - 1, 4)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        filters: a quarter of its channels.
        blocks: how many.
        start: nominal stride of its input.
        stride: by which its first block strides, nominally.
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
        """Nominal stride that block number `block`, from 0, starts from."""
        return self.start if block == 0 else self.end


def build_stage(stage: Stage, settings: ResidualSettings, normalization: Normalization, name: str) -> list:
    """The blocks of a stage, layers from features to features before their activation."""
    return [
        _build_block(stage, block, settings, normalization, f"{name}_block{block + 1}") for block in range(stage.blocks)
    ]


def _build_block(stage: Stage, block: int, settings: ResidualSettings, normalization, name) -> tf.keras.layers.Layer:
    start = stage.start_of(block)
    shared = {
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
    # The second convolution sees what the first would have strided over, so it is dilated one block earlier.
    second = max(stage.end // settings.output_stride, 1)
    return BasicBlock(stage.filters, normalization, dilation=dilation, second_dilation=second, **shared)
