"""Axial-ResNet as a pixel encoder (Wang et al., "Axial-DeepLab", ECCV 2020; MaX-S of "MaX-DeepLab", CVPR 2021).

A ResNet with an Inception stem, in which blocks that start from stride 16 or more attend along the axes instead of
convolving. These are all blocks of the last stage, and all but the first block of the stage before.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.stems import InceptionStem
from deeplab2_kmax.model.pixel_encoders.residual_stages import ResidualSettings, Stage, build_stage
from deeplab2_kmax.protos import model_pb2


@dataclasses.dataclass(frozen=True)
class AxialResNetSettings:
    """Widths and depths of an Axial-ResNet; the defaults are Axial-ResNet-50.

    Attributes:
        stem_channels: channels of the stem's first two convolutions; the third has twice as many.
        stage_filters: a quarter of the channels of the stages at strides 4, 8, 16 and 32. Those of the last two stages
            are multiples of eight, the number of attention heads.
        stage_blocks: number of blocks of these stages.
        keep_prob: probability that the last block's residual branch is kept in training.
    """

    stem_channels: int = 64
    stage_filters: tuple[int, ...] = (64, 128, 256, 512)
    stage_blocks: tuple[int, ...] = (3, 4, 6, 3)
    keep_prob: float = 1.0

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions.BackboneOptions) -> AxialResNetSettings:
        """Reads the settings from the config's `model_options.backbone`."""
        return cls(
            options.stem_channels,
            tuple(options.stage_filters),
            tuple(options.stage_blocks),
            options.drop_path_keep_prob,
        )


class AxialResNet(tf.keras.layers.Layer):
    """Image [B, H, W, 3] -> {"stage1": stride 2, ..., "stage5": stride 32}, features before their activation.

    Args:
        settings: widths and depths.
        normalization: settings of the batch norms.
    """

    # DeepLab2's kMaX variant of the encoder uses GELU, while MaX-DeepLab's encoder (model/dual_path) uses ReLU.
    activation = "gelu"

    def __init__(self, settings: AxialResNetSettings, normalization: Normalization, name: str = "pixel_encoder"):
        super().__init__(name=name)
        shared = ResidualSettings(activation=self.activation, keep_prob=settings.keep_prob)
        self.stem = InceptionStem(settings.stem_channels, normalization, self.activation)
        self.stages = [
            build_stage(Stage(filters, blocks, 2**index), shared, normalization, f"stage{index + 1}")
            for index, (filters, blocks) in enumerate(zip(settings.stage_filters, settings.stage_blocks), start=1)
        ]

    def call(self, image: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        x = self.stem(image, training=training)
        features = {"stage1": x}
        for stage, blocks in enumerate(self.stages, start=2):
            for block in blocks:
                x = block(x, training=training)
            features[f"stage{stage}"] = x
        return features
