"""Transformer decoder: cluster centers, updated layer by layer on pixel features of strides 32, 16 and 8."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.model.heads import HeadSettings
from deeplab2_kmax.model.layers.convolution import LinearNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.transformer_decoder.decoder_layer import DecoderLayer, LayerOutput
from deeplab2_kmax.model.transformer_decoder.settings import TransformerDecoderSettings

__all__ = ["DecoderLayer", "DecoderState", "LayerOutput", "TransformerDecoder", "TransformerDecoderSettings"]

STRIDES = (32, 16, 8)


class DecoderState(NamedTuple):
    """Where the decoder stands between two layers.

    Attributes:
        centers: [B, N, center_channels].
        assignment_logits: [B, h, w, N] of the last layer, at its resolution; None before the first and where the
            rule has none.
        outputs: what each layer so far left behind.
    """

    centers: tf.Tensor
    assignment_logits: tf.Tensor | None = None
    outputs: tuple[LayerOutput, ...] = ()


class TransformerDecoder(tf.keras.layers.Layer):
    """Updates centers on pixel features, one stride after the other.

    Layers may change the pixels too, and the pixel decoder goes on from those, so the two take turns:

        state = decoder.initial_state(batch_size)
        pixels, state = decoder.update(0, pixels_of_stride_32, state)      # then the pixel decoder, from `pixels`
        pixels, state = decoder.update(1, pixels_of_stride_16, state)
        pixels, state = decoder.update(2, pixels_of_stride_8, state)
        class_embedding, mask_embedding = decoder.embeddings(state.centers)
    """

    def __init__(
        self,
        settings: TransformerDecoderSettings,
        head_settings: HeadSettings,
        normalization: Normalization,
        name: str = "transformer_decoder",
    ):
        super().__init__(name=name)
        channels = settings.center_channels
        self.num_blocks = settings.num_blocks
        self.cluster_centers = self.add_weight(
            "cluster_centers",
            [1, settings.num_centers, channels],
            initializer=tf.keras.initializers.TruncatedNormal(stddev=1.0),
        )
        self.layers = [
            DecoderLayer(settings, head_settings, normalization, name=f"stride{stride}_layer{i + 1}")
            for stride, count in zip(STRIDES, settings.num_blocks)
            for i in range(count)
        ]
        self.class_embedding = LinearNorm(channels, normalization, settings.activation, name="class_embedding")
        self.mask_embedding = LinearNorm(channels, normalization, settings.activation, name="mask_embedding")

    def initial_state(self, batch_size) -> DecoderState:
        """The learned centers, for each of `batch_size` images."""
        return DecoderState(tf.tile(self.cluster_centers, [batch_size, 1, 1]))

    def update(self, stage: int, pixels, state: DecoderState, training=False) -> tuple[tf.Tensor, DecoderState]:
        """Applies the layers of a stage (0: stride 32, 1: 16, 2: 8; none at finer ones) to pixels [B, h, w, C].

        Returns pixels, not activated, and state after them.
        """
        first = sum(self.num_blocks[:stage])
        for layer in self.layers[first : first + sum(self.num_blocks[stage : stage + 1])]:
            output = layer(pixels, state.centers, state.assignment_logits, training=training)
            pixels = output.pixels
            state = DecoderState(output.centers, output.assignment_logits, (*state.outputs, output))
        return pixels, state

    def embeddings(self, centers, training=False) -> tuple[tf.Tensor, tf.Tensor]:
        """Centers [B, N, C] -> class embedding and mask embedding, each [B, N, C]."""
        return self.class_embedding(centers, training=training), self.mask_embedding(centers, training=training)
