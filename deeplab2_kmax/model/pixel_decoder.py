"""Pixel decoder: brings features of stride 32 back to stride 4 (or 2), and adds the encoder's features on the way.

Its axial self-attention has the role of a transformer encoder (Yu et al., "k-means Mask Transformer", ECCV 2022,
section 3.3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from deeplab2_kmax.model.layers.fusion import CoarseToFineFusion
from deeplab2_kmax.model.layers.layer_norm import LayerNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.residual_blocks import AxialBlock, BottleneckBlock
from deeplab2_kmax.protos import model_pb2

# Encoder features by decoder stage, from stride 32 upwards.
ENCODER_FEATURES = ("stage5", "stage4", "stage3", "stage2", "stage1")


@dataclasses.dataclass(frozen=True)
class PixelDecoderSettings:
    """Sizes of the decoder's stages. Tuples have one entry for each stage, from stride 32 to the finest.

    Attributes:
        filters: bottleneck width; the stage returns four times as many channels.
        num_blocks: number of residual blocks.
        block_type: kind of residual block, "axial" or "bottleneck".
        bottleneck_atrous_rate: dilation of the 3x3 convolution in bottleneck blocks.
        encoder_features: name of the encoder feature that the stage takes in.
    """

    filters: tuple[int, ...] = (512, 256, 128, 64)
    num_blocks: tuple[int, ...] = (1, 5, 1, 1)
    block_type: tuple[str, ...] = ("axial", "axial", "bottleneck", "bottleneck")
    bottleneck_atrous_rate: int = 2
    encoder_features: tuple[str, ...] = ENCODER_FEATURES

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions.PixelDecoderOptions) -> PixelDecoderSettings:
        """Reads the settings from the config's `model_options.max_deeplab.pixel_decoder`."""
        return cls(
            tuple(options.filters),
            tuple(options.num_blocks),
            tuple(options.block_type),
            options.bottleneck_atrous_rate,
            tuple(options.encoder_features) or ENCODER_FEATURES,
        )


class PixelDecoder(tf.keras.layers.Layer):
    """Encoder features {"stage1" .. "stage5"} -> features of each stage, stride 32 first, the finest last.

    All features are taken and returned before their activation. Stages are computed one by one, because the transformer
    decoder may change the features of one stage before the next begins:

        x = None
        for index, skip in enumerate(pixel_decoder.skips(encoder_features)):
            x = pixel_decoder.stage(index, x, skip)

    Args:
        settings: sizes of the stages.
        normalization: settings of the batch norms.
    """

    def __init__(self, settings: PixelDecoderSettings, normalization: Normalization, name: str = "pixel_decoder"):
        super().__init__(name=name)
        stages = range(len(settings.filters))
        self.encoder_features = settings.encoder_features
        # Encoder features come without activation and, from encoders such as ConvNeXt, without normalization: their
        # scales differ. Layer norms bring them to one scale.
        self.skip_norms = [LayerNorm(name=f"skip_norm{i}") for i in stages]
        self.stages = [self._blocks(settings, i, normalization) for i in stages]
        # A fusion returns `filters` channels, the stage's blocks four times as many.
        self.fusions = [
            CoarseToFineFusion(settings.filters[i], normalization, "gelu", name=f"fusion{i}") for i in stages[1:]
        ]

    @staticmethod
    def _blocks(
        settings: PixelDecoderSettings, stage: int, normalization: Normalization
    ) -> list[AxialBlock] | list[BottleneckBlock]:
        filters = settings.filters[stage]
        names = [f"stage{stage}_block{block + 1}" for block in range(settings.num_blocks[stage])]
        if settings.block_type[stage] == "axial":
            return [AxialBlock(filters, normalization, "gelu", name=name) for name in names]
        dilation = settings.bottleneck_atrous_rate
        return [BottleneckBlock(filters, normalization, "gelu", dilation=dilation, name=name) for name in names]

    def skips(self, encoder_features: Mapping[str, tf.Tensor]) -> list[tf.Tensor]:
        """The normalized encoder feature [B, h, w, C] of each stage, from stride 32 to the finest."""
        return [norm(encoder_features[name]) for norm, name in zip(self.skip_norms, self.encoder_features)]

    def stage(self, index: int, x: tf.Tensor | None, skip: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Computes one stage.

        Args:
            index: number of the stage, from 0.
            x: features of the stage before; None for the first stage, which starts from `skip` alone.
            skip: the stage's entry of `skips`.
            training: whether batch norms use the statistics of the batch.

        Returns:
            [B, h, w, 4 * filters] at the size of `skip`, before its activation.
        """
        x = skip if index == 0 else self.fusions[index - 1]([x, skip], training=training)
        for block in self.stages[index]:
            x = block(x, training=training)
        return x
