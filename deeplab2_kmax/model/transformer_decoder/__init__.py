"""Transformer decoder: cluster centers, updated layer by layer on pixel features of strides 32, 16 and 8.

`decoder_layer.py` is one layer, and what all layers share. How centers and pixels are updated is an update rule, one
file each: `kmeans_clustering.py` (kMaX-DeepLab), `max_attention.py` (MaX-DeepLab) and `cmt_clustering.py` (CMT-DeepLab,
reconstructed); `update_rule.py` is their interface. `attention.py` and `location.py` are parts of the rules, and
`settings.py` has the sizes and choices of them all. This file chains layers into the decoder of the kMaX skeleton. Not
here: the layers' place in MaX-DeepLab's skeleton (`model/dual_path`) and the heads (`model/heads.py`). Start reading at
`decoder_layer.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.model.heads import HeadSettings
from deeplab2_kmax.model.layers.convolution import LinearNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.transformer_decoder.decoder_layer import DecoderLayer, LayerOutput
from deeplab2_kmax.model.transformer_decoder.settings import TransformerDecoderSettings

__all__ = ["DecoderLayer", "DecoderState", "LayerOutput", "TransformerDecoder", "TransformerDecoderSettings"]

# Of the pixel features that layers of the kMaX skeleton work on, in order.
STRIDES = (32, 16, 8)


class DecoderState(NamedTuple):
    """The state of the decoder between two layers.

    Attributes:
        centers: [B, N, center_channels].
        assignment_logits: [B, h, w, N] of the layer before, at its resolution; None before the first layer and where
            the update rule has none.
        outputs: outputs of all layers so far.
    """

    centers: tf.Tensor
    assignment_logits: tf.Tensor | None = None
    outputs: tuple[LayerOutput, ...] = ()

    def after(self, output: LayerOutput) -> DecoderState:
        """The state after one more layer, whose output is `output`."""
        return DecoderState(output.centers, output.assignment_logits, (*self.outputs, output))


class TransformerDecoder(tf.keras.layers.Layer):
    """Updates cluster centers on pixel features, one stride after the other.

    Layers may update the pixels too, and the pixel decoder goes on from the updated pixels. So the two take turns:

        state = decoder.initial_state(batch_size)
        pixels, state = decoder.update(0, pixels_of_stride_32, state)      # then the pixel decoder, from `pixels`
        pixels, state = decoder.update(1, pixels_of_stride_16, state)
        pixels, state = decoder.update(2, pixels_of_stride_8, state)
        class_embedding, mask_embedding = decoder.embeddings(state.centers)

    Args:
        settings: sizes and update rule.
        head_settings: sizes of the layers' own predictions.
        normalization: settings of the batch norms.
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

    def initial_state(self, batch_size: int | tf.Tensor) -> DecoderState:
        """The state before the first layer: the learned centers, repeated for each of `batch_size` images."""
        return DecoderState(tf.tile(self.cluster_centers, [batch_size, 1, 1]))

    def update(
        self, stage: int, pixels: tf.Tensor, state: DecoderState, training: bool = False
    ) -> tuple[tf.Tensor, DecoderState]:
        """Applies the layers of one stage of the pixel decoder.

        Args:
            stage: 0 for stride 32, 1 for 16, 2 for 8. Finer stages have no layers.
            pixels: [B, h, w, C], not activated.
            state: before the layers.
            training: whether batch norms use the statistics of the batch.

        Returns:
            (pixels, not activated; state), both after the layers.
        """
        first = sum(self.num_blocks[:stage])
        # Summing a slice of one entry gives zero layers for stages beyond the last entry.
        for layer in self.layers[first : first + sum(self.num_blocks[stage : stage + 1])]:
            output = layer(pixels, state.centers, state.assignment_logits, training=training)
            pixels, state = output.pixels, state.after(output)
        return pixels, state

    def embeddings(self, centers: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Centers [B, N, C] -> (class embedding [B, N, C], mask embedding [B, N, C])."""
        return self.class_embedding(centers, training=training), self.mask_embedding(centers, training=training)
