"""ResNet as a pixel encoder (He et al., 2016), in DeepLab2's variant.

It differs from the original in two ways. A stage strides in the 3x3 convolution of its first block, not in a 1x1
convolution. And there is no max-pool after the stem; the first stage strides instead. The max-pool can be switched on,
for weights of the PyTorch port of kMaX-DeepLab.
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
        stem_max_pool: whether a 3x3 max-pool of stride 2 follows the stem, in place of the first stage's stride.
        activated_features: whether features are returned after their activation.
    """

    stem_channels: int = 64
    stage_filters: tuple[int, ...] = (64, 128, 256, 512)
    stage_blocks: tuple[int, ...] = (3, 4, 6, 3)
    keep_prob: float = 1.0
    stem_max_pool: bool = False
    activated_features: bool = False

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions.BackboneOptions) -> ResNetSettings:
        """Reads the settings from the config's `model_options.backbone`."""
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

    With `stem_max_pool`, "stage1" is the output of the max-pool, which is activated and has stride 4. With
    `activated_features`, all features are returned after their activation.

    Args:
        settings: widths and depths.
        normalization: settings of the batch norms.
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

    def call(self, image: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
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
    """3x3 max-pool of stride 2 with one pixel of padding on each side, as PyTorch does it.

    Args:
        x: [B, H, W, C]; not negative, because the padding is zero.

    Returns:
        [B, ceil(H / 2), ceil(W / 2), C].
    """
    # "SAME" padding of TensorFlow would add the pixel only on the lower right where sides are even.
    return tf.nn.max_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 2, "VALID")


def _keep_prob(last: float, stage: int, block: int) -> float:
    """Keep-probability of block number `block`, from 0, of `stage`, where the last block's is `last`."""
    # As in DeepLab2, it depends on the stride a block *starts* from: 1 below stride 16, then a linear fall from stage
    # to stage. So the first block of a stage has the probability of the stage before.
    entered = stage - 2 if block == 0 else stage - 1
    return linear_keep_prob(last, entered, 4) if entered >= 3 else 1.0
