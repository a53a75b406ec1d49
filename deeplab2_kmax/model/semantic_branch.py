"""Auxiliary semantic segmentation: gives the encoder one more loss in training; panoptic maps do not need it.

The decoder is that of Panoptic-DeepLab (Cheng et al., CVPR 2020): atrous spatial pyramid pooling on the last stage of
the encoder, then skip connections from earlier stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from deeplab2_kmax.model.layers.convolution import ConvNorm, SeparableConvNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.precision import as_float32
from deeplab2_kmax.model.layers.regularization import dropout
from deeplab2_kmax.model.layers.resize import resize_like
from deeplab2_kmax.protos import model_pb2


@dataclasses.dataclass(frozen=True)
class SemanticDecoderSettings:
    """Sizes of the decoder.

    Attributes:
        aspp_channels: channels of each branch of the pyramid and of its projection.
        atrous_rates: three dilation rates.
        decoder_channels: channels after each fusion with a skip feature.
        skips: (name of the encoder feature, channels it is projected to), from low to high resolution, for example
            ("res3", 64).
        dropout: rate of the dropout after the pyramid in training.
        activation: "gelu" (the kMaX skeleton) or "relu" (MaX-DeepLab's).
    """

    aspp_channels: int
    atrous_rates: tuple[int, ...]
    decoder_channels: int
    skips: tuple[tuple[str, int], ...]
    dropout: float = 0.1
    activation: str = "gelu"

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions, activation: str = "gelu") -> SemanticDecoderSettings:
        """Reads the settings from the config's `model_options.decoder` and `.max_deeplab.auxiliary_low_level`."""
        decoder = options.decoder
        return cls(
            decoder.aspp_channels,
            tuple(decoder.atrous_rates),
            decoder.decoder_channels,
            tuple((skip.feature_key, skip.channels_project) for skip in options.max_deeplab.auxiliary_low_level),
            activation=activation,
        )


class AtrousSpatialPyramidPooling(tf.keras.layers.Layer):
    """A 1x1, three dilated 3x3 and one image-wide branch, projected: [B, h, w, C] -> [B, h, w, aspp_channels].

    Args:
        settings: channels, dilation rates, dropout and activation.
        normalization: settings of the batch norms.
    """

    def __init__(self, settings: SemanticDecoderSettings, normalization: Normalization, name: str | None = None):
        super().__init__(name=name)

        def conv(kernel_size: int, name: str, dilation: int = 1) -> ConvNorm:
            return ConvNorm(
                settings.aspp_channels,
                kernel_size,
                normalization,
                dilation=dilation,
                activation=settings.activation,
                name=name,
            )

        self.pointwise = conv(1, "pointwise")
        self.dilated = [conv(3, f"dilated{rate}", rate) for rate in settings.atrous_rates]
        self.pooled = conv(1, "pooled")
        self.projection = conv(1, "projection")
        self.dropout = settings.dropout

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        branches = [self.pointwise(x, training=training)]
        branches += [conv(x, training=training) for conv in self.dilated]
        # The branch for the whole image; its mean is over all pixels, so it is taken in float32.
        pooled = self.pooled(tf.reduce_mean(as_float32(x), [1, 2], keepdims=True), training=training)
        branches.append(tf.broadcast_to(pooled, tf.shape(branches[0])))
        projected = self.projection(tf.concat(branches, -1), training=training)
        return dropout(projected, self.dropout, training)


class SemanticDecoder(tf.keras.layers.Layer):
    """Activated features of the encoder -> [B, h, w, decoder_channels] at the stride of the last skip.

    Called with the last stage's feature [B, h', w', C] and a dict of skip features, e.g. "res3" and "res2".

    Args:
        settings: sizes of the decoder.
        normalization: settings of the batch norms.
    """

    def __init__(self, settings: SemanticDecoderSettings, normalization: Normalization, name: str = "semantic_decoder"):
        super().__init__(name=name)
        self.skip_names = [feature for feature, _ in settings.skips]
        self.pyramid = AtrousSpatialPyramidPooling(settings, normalization, name="pyramid")
        activation = settings.activation
        self.skips = [
            ConvNorm(channels, 1, normalization, activation=activation, name=f"skip_{feature}")
            for feature, channels in settings.skips
        ]
        self.fusions = [
            SeparableConvNorm(settings.decoder_channels, 5, normalization, activation, name=f"fusion_{feature}")
            for feature in self.skip_names
        ]

    def call(self, high_level: tf.Tensor, skip_features: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        x = self.pyramid(high_level, training=training)
        for name, skip, fusion in zip(self.skip_names, self.skips, self.fusions):
            fine = skip(skip_features[name], training=training)
            x = fusion(tf.concat([resize_like(x, fine), fine], -1), training=training)
        return x
