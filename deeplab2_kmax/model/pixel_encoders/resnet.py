"""ResNet as a pixel encoder (He et al., 2016), in DeepLab2's variant.

Against the original: a stage strides in the 3x3 convolution of its first block, and in place of the stem's max-pool
the first stage strides too. The max-pool is there on request, for weights of the PyTorch port.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from deeplab2_kmax.model.layers.convolution import ConvNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.regularization import linear_keep_prob
from deeplab2_kmax.model.layers.residual_blocks import BottleneckBlock
from deeplab2_kmax.protos import model_pb2


@dataclasses.dataclass(frozen=True)
class ResNetSettings:
    """Widths and depths of a ResNet; the defaults are ResNet-50.

    Attributes:
        stem_channels: channels after the 7x7 convolution.
        stage_filters: bottleneck width of the stages at strides 4, 8, 16 and 32.
        stage_blocks: number of blocks of these stages.
        keep_prob: probability that the last block's residual branch is kept in training.
        stem_max_pool: 3x3 max-pool of stride 2 after the stem, in place of the first stage's stride.
        activated_features: put features out after their activation.
    """

    stem_channels: int = 64
    stage_filters: tuple[int, ...] = (64, 128, 256, 512)
    stage_blocks: tuple[int, ...] = (3, 4, 6, 3)
    keep_prob: float = 1.0
    stem_max_pool: bool = False
    activated_features: bool = False

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions.BackboneOptions) -> ResNetSettings:
        return cls(
            options.stem_channels,
            tuple(options.stage_filters),
            tuple(options.stage_blocks),
            options.drop_path_keep_prob,
            options.stem_max_pool,
            options.activated_features,
        )


class ResNet(tf.keras.layers.Layer):
    """Image [B, H, W, 3] -> {"stage1": stride 2, ..., "stage5": stride 32}, features before their activation.

    With `stem_max_pool`, "stage1" is what the max-pool puts out: activated, at stride 4.
    """

    activation = "relu"

    def __init__(self, settings: ResNetSettings, normalization: Normalization, name: str = "pixel_encoder"):
        super().__init__(name=name)
        self.stem_max_pool = settings.stem_max_pool
        self.activated_features = settings.activated_features
        self.stem = ConvNorm(settings.stem_channels, 7, normalization, stride=2, name="stem")
        self.stages = []
        for stage, (filters, count) in enumerate(zip(settings.stage_filters, settings.stage_blocks), start=2):
            self.stages.append(
                [
                    BottleneckBlock(
                        filters,
                        normalization,
                        stride=2 if block == 0 and not (settings.stem_max_pool and stage == 2) else 1,
                        keep_prob=_keep_prob(settings.keep_prob, stage, block),
                        name=f"stage{stage}_block{block + 1}",
                    )
                    for block in range(count)
                ]
            )

    def call(self, image, training=False):
        x = self.stem(image, training=training)
        if self.stem_max_pool:
            x = _max_pool(tf.nn.relu(x))
        features = {"stage1": x}
        for stage, blocks in enumerate(self.stages, start=2):
            for block in blocks:
                x = block(x, training=training)
            features[f"stage{stage}"] = x
        return {name: tf.nn.relu(x) for name, x in features.items()} if self.activated_features else features


def _max_pool(x: tf.Tensor) -> tf.Tensor:
    """3x3 max-pool of stride 2, one pixel of padding on each side: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C].

    The padding is zero, so `x` must not be negative.
    """
    return tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")


def _keep_prob(last: float, stage: int, block: int) -> float:
    """Drop path begins inside the stage of stride 16 and grows with the stage a block *starts* from."""
    entered = stage - 2 if block == 0 else stage - 1
    return linear_keep_prob(last, entered, 4) if entered >= 3 else 1.0
