"""Transformer decoder: cluster centers, updated layer by layer on pixel features of strides 32, 16 and 8."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.heads import HeadSettings
from deeplab2_kmax.model.layers.convolution import LinearNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.transformer_decoder.decoder_layer import DecoderLayer, TransformerDecoderSettings

__all__ = ["TransformerDecoder", "TransformerDecoderSettings"]


class TransformerDecoder(tf.keras.layers.Layer):
    """Pixel features [stride 32, stride 16, stride 8, ...] -> embeddings of the centers and each layer's prediction.

    Returns (class embedding [B, N, C], mask embedding [B, N, C], list of `Prediction` in the order of the layers).
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
            for stride, count in zip((32, 16, 8), settings.num_blocks)
            for i in range(count)
        ]
        self.class_embedding = LinearNorm(channels, normalization, "gelu", name="class_embedding")
        self.mask_embedding = LinearNorm(channels, normalization, "gelu", name="mask_embedding")

    def call(self, pixel_features, training=False):
        # One set of features a layer, e.g. strides 32, 32, 16, 16, 8, 8.
        features = [x for x, count in zip(pixel_features, self.num_blocks) for _ in range(count)]
        centers = tf.tile(self.cluster_centers, [tf.shape(pixel_features[0])[0], 1, 1])
        predictions = []
        for layer, pixels in zip(self.layers, features):
            centers, prediction = layer(pixels, centers, training=training)
            predictions.append(prediction)
        class_embedding = self.class_embedding(centers, training=training)
        mask_embedding = self.mask_embedding(centers, training=training)
        return class_embedding, mask_embedding, predictions
