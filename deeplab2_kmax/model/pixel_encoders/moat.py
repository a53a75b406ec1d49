"""MOAT as a pixel encoder (Yang et al., "MOAT: Alternating Mobile Convolution and Attention", ICLR 2023).

Two stages of mobile convolutions, then two stages of mobile convolutions with attention over the whole map.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.initializers import small_normal
from deeplab2_kmax.model.layers.mobile_blocks import MOATBlock, MobileConvBlock
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization
from deeplab2_kmax.model.layers.regularization import linear_keep_prob
from deeplab2_kmax.protos import model_pb2

# For each stage with attention, the side of its map in pretraining on images of 224 x 224; None: no attention.
# The tables of position biases in DeepLab2's checkpoints have this size, also those of larger pretraining images.
_LEARNED_SIZES = (None, None, 14, 7)


@dataclasses.dataclass(frozen=True)
class MOATSettings:
    """Widths and depths; the defaults are MOAT-0.

    Attributes:
        stem_channels: channels of the stem's two convolutions.
        stage_filters: channels of the stages at strides 4, 8, 16 and 32. Those of the last two stages are multiples of
            32, the channels of an attention head.
        stage_blocks: number of blocks of these stages.
        position_embedding: whether attention has a bias for the offset between two pixels.
        keep_prob: end of the linear fall, from 1 at the first block, of the probability that a residual branch is kept
            in training. It is reached one block after the last, so the last block's probability is a little larger.
    """

    stem_channels: int = 64
    stage_filters: tuple[int, ...] = (96, 192, 384, 768)
    stage_blocks: tuple[int, ...] = (2, 3, 7, 2)
    position_embedding: bool = True
    keep_prob: float = 1.0

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions.BackboneOptions) -> MOATSettings:
        """Reads the settings from the config's `model_options.backbone`."""
        return cls(
            options.stem_channels,
            tuple(options.stage_filters),
            tuple(options.stage_blocks),
            options.position_embedding,
            options.drop_path_keep_prob,
        )


class MOAT(tf.keras.layers.Layer):
    """Image [B, H, W, 3] -> {"stage1": stride 2, ..., "stage5": stride 32}, features before their activation.

    Args:
        settings: widths and depths.
        normalization: settings of the batch norms; momentum and epsilon are not used, see the code.
    """

    activation = "gelu"

    def __init__(self, settings: MOATSettings, normalization: Normalization, name: str = "pixel_encoder"):
        super().__init__(name=name)
        # DeepLab2 leaves MOAT's batch norms at Keras' defaults, whatever the config says.
        normalization = dataclasses.replace(normalization, momentum=0.99, epsilon=1e-3)
        self.moat_stem = MOATStem(settings.stem_channels, normalization, name="stem")
        blocks = sum(settings.stage_blocks)
        before = 0
        self.moat_stages = []
        for stage, (filters, count) in enumerate(zip(settings.stage_filters, settings.stage_blocks)):
            self.moat_stages.append(
                [
                    _block(
                        stage,
                        filters,
                        normalization,
                        settings,
                        stride=2 if block == 0 else 1,
                        keep_prob=linear_keep_prob(settings.keep_prob, before + block, blocks),
                        name=f"stage{stage + 2}_block{block + 1}",
                    )
                    for block in range(count)
                ]
            )
            before += count

    def call(self, image: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        x = self.moat_stem(image, training=training)
        features = {"stage1": x}
        for stage, blocks in enumerate(self.moat_stages, start=2):
            for block in blocks:
                x = block(x, training=training)
            features[f"stage{stage}"] = x
        return features


def _block(
    stage: int, filters: int, normalization: Normalization, settings: MOATSettings, **options: Any
) -> MobileConvBlock | MOATBlock:
    """A block of stage number `stage`, from 0; `options` are arguments that both kinds of blocks take."""
    learned_size = _LEARNED_SIZES[stage]
    if learned_size is None:
        return MobileConvBlock(filters, normalization, **options)
    return MOATBlock(
        filters, normalization, learned_size=learned_size if settings.position_embedding else None, **options
    )


class MOATStem(tf.keras.layers.Layer):
    """3x3 convolution of stride 2, batch norm, GELU, 3x3 convolution.

    [B, H, W, 3] -> [B, ceil(H / 2), ceil(W / 2), channels]

    Args:
        channels: of both convolutions.
        normalization: settings of the batch norm.
    """

    def __init__(self, channels: int, normalization: Normalization, name: str | None = None):
        super().__init__(name=name)

        def conv(stride, name):
            return tf.keras.layers.Conv2D(channels, 3, stride, "same", kernel_initializer=small_normal(), name=name)

        self.first = conv(2, "first")
        self.norm = BatchNorm(normalization, name="norm")
        self.second = conv(1, "second")
        self.activate = activation("gelu")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.second(self.activate(self.norm(self.first(x), training=training), training))
