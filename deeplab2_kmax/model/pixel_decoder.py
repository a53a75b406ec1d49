"""Pixel decoder: brings features of stride 32 back to stride 4 (or 2), fusing the encoder's features on the way.

Self-attention inside it plays the part of a transformer encoder (Yu et al., "k-means Mask Transformer", ECCV 2022,
section 3.3).
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.convolution import ConvNorm
from deeplab2_kmax.model.layers.layer_norm import LayerNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.residual_blocks import AxialBlock, BottleneckBlock
from deeplab2_kmax.model.layers.resize import resize_like
from deeplab2_kmax.protos import model_pb2

# Encoder features by decoder stage, from stride 32 upwards.
ENCODER_FEATURES = ("stage5", "stage4", "stage3", "stage2", "stage1")


@dataclasses.dataclass(frozen=True)
class PixelDecoderSettings:
    """One entry a stage, from stride 32 upwards.

    Attributes:
        filters: bottleneck width; the stage puts out four times as many channels.
        num_blocks: residual blocks.
        block_type: "axial" or "bottleneck".
        bottleneck_atrous_rate: dilation of the 3x3 convolution of bottleneck blocks.
        encoder_features: names of the encoder's features that the stages take in.
    """

    filters: tuple[int, ...] = (512, 256, 128, 64)
    num_blocks: tuple[int, ...] = (1, 5, 1, 1)
    block_type: tuple[str, ...] = ("axial", "axial", "bottleneck", "bottleneck")
    bottleneck_atrous_rate: int = 2
    encoder_features: tuple[str, ...] = ENCODER_FEATURES

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions.PixelDecoderOptions) -> PixelDecoderSettings:
        return cls(
            tuple(options.filters),
            tuple(options.num_blocks),
            tuple(options.block_type),
            options.bottleneck_atrous_rate,
            tuple(options.encoder_features) or ENCODER_FEATURES,
        )


class Fusion(tf.keras.layers.Layer):
    """Adds coarse features [B, h, w, C1] to finer ones [B, H, W, C2]: both projected to `channels`, then resized.

    A feature that has `channels` channels already is taken as it is, without activation and projection.
    """

    def __init__(self, channels: int, normalization: Normalization, name: str | None = None):
        super().__init__(name=name)
        self.channels = channels
        self.normalization = normalization
        self.activate = activation("gelu")

    def build(self, input_shapes):
        coarse, fine = input_shapes
        self.coarse = self._projection(coarse[-1], "coarse")
        self.fine = self._projection(fine[-1], "fine")
        super().build(input_shapes)

    def _projection(self, channels: int, name: str) -> ConvNorm | None:
        return None if channels == self.channels else ConvNorm(self.channels, 1, self.normalization, name=name)

    def call(self, inputs, training=False):
        coarse, fine = inputs
        if self.coarse is not None:
            coarse = self.coarse(self.activate(coarse, training), training=training)
        if self.fine is not None:
            fine = self.fine(self.activate(fine, training), training=training)
        return resize_like(coarse, fine) + fine


class PixelDecoder(tf.keras.layers.Layer):
    """Encoder features {"stage1" .. "stage5"} -> features of each stage, stride 32 first, the finest last.

    All are taken and returned before their activation. Stages are asked for one by one, because the transformer
    decoder may change the features of one before the next begins:

        x = None
        for index, skip in enumerate(pixel_decoder.skips(encoder_features)):
            x = pixel_decoder.stage(index, x, skip)
    """

    def __init__(self, settings: PixelDecoderSettings, normalization: Normalization, name: str = "pixel_decoder"):
        super().__init__(name=name)
        stages = range(len(settings.filters))
        self.encoder_features = settings.encoder_features
        self.skip_norms = [LayerNorm(name=f"skip_norm{i}") for i in stages]
        self.stages = [self._blocks(settings, i, normalization) for i in stages]
        self.fusions = [Fusion(settings.filters[i], normalization, name=f"fusion{i}") for i in stages[1:]]

    @staticmethod
    def _blocks(settings: PixelDecoderSettings, stage: int, normalization: Normalization) -> list:
        filters = settings.filters[stage]
        names = [f"stage{stage}_block{block + 1}" for block in range(settings.num_blocks[stage])]
        if settings.block_type[stage] == "axial":
            return [AxialBlock(filters, normalization, "gelu", name=name) for name in names]
        dilation = settings.bottleneck_atrous_rate
        return [BottleneckBlock(filters, normalization, "gelu", dilation=dilation, name=name) for name in names]

    def skips(self, encoder_features) -> list[tf.Tensor]:
        """What the encoder contributes to each stage, from stride 32 upwards."""
        return [norm(encoder_features[name]) for norm, name in zip(self.skip_norms, self.encoder_features)]

    def stage(self, index: int, x, skip, training=False) -> tf.Tensor:
        """Features of stage `index` from those of the stage before, `x` (None at the first), and its skip."""
        x = skip if index == 0 else self.fusions[index - 1]([x, skip], training=training)
        for block in self.stages[index]:
            x = block(x, training=training)
        return x
