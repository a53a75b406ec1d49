"""One layer of the transformer decoder: clustering, self-attention among centers, feed-forward network.

The rule by which centers gather from pixels is a layer of its own (`kmeans_clustering.py`); this file is what all rules
share.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from deeplab2_kmax.model.heads import HeadSettings
from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.convolution import LinearNorm
from deeplab2_kmax.model.layers.drop_path import drop_path
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization
from deeplab2_kmax.model.layers.shapes import shape_of
from deeplab2_kmax.model.transformer_decoder.kmeans_clustering import KMeansClustering
from deeplab2_kmax.protos import model_pb2

UPDATE_RULES = {"kmax": KMeansClustering}


@dataclasses.dataclass(frozen=True)
class TransformerDecoderSettings:
    """Sizes of the transformer decoder.

    Attributes:
        num_blocks: layers at strides 32, 16 and 8.
        num_centers: cluster centers, i.e. mask slots.
        center_channels: channels of a center.
        bottleneck_channels: channels to which pixels and centers are projected inside a layer.
        key_channels, value_channels: over all heads.
        num_heads: of the self-attention.
        feed_forward_channels: hidden channels of the feed-forward network.
        keep_prob: probability that a residual branch is kept in training.
        update_rule: key of UPDATE_RULES.
    """

    num_blocks: tuple[int, ...] = (2, 2, 2)
    num_centers: int = 128
    center_channels: int = 256
    bottleneck_channels: int = 256
    key_channels: int = 128
    value_channels: int = 256
    num_heads: int = 8
    feed_forward_channels: int = 2048
    keep_prob: float = 1.0
    update_rule: str = "kmax"

    @classmethod
    def from_options(cls, options: model_pb2.ModelOptions.MaXDeepLabOptions) -> TransformerDecoderSettings:
        decoder = options.transformer_decoder
        return cls(
            tuple(decoder.num_blocks),
            options.num_mask_slots,
            decoder.center_channels,
            decoder.bottleneck_channels,
            decoder.key_channels,
            decoder.value_channels,
            decoder.num_heads,
            decoder.feed_forward_channels,
            options.transformer_decoder_drop_path_keep_prob,
            decoder.update_rule,
        )


class SelfAttention(tf.keras.layers.Layer):
    """Multi-head attention among centers: [B, N, bottleneck] -> [B, N, center_channels].

    Similarities are batch-normalized for each head instead of scaled by 1 / sqrt(depth).
    """

    def __init__(self, settings: TransformerDecoderSettings, normalization: Normalization, name: str | None = None):
        super().__init__(name=name)
        heads = settings.num_heads
        self.num_heads = heads
        self.depths = [settings.key_channels, settings.key_channels, settings.value_channels]
        self.query_key_value = LinearNorm(
            sum(self.depths),
            normalization,
            kernel_initializer=tf.keras.initializers.TruncatedNormal(stddev=settings.bottleneck_channels**-0.5),
            name="query_key_value",
        )
        self.similarity_norm = BatchNorm(normalization, name="similarity_norm")
        self.value_norm = BatchNorm(
            normalization, shape=[1, heads, 1, settings.value_channels // heads], name="value_norm"
        )
        self.activate = activation("gelu")
        self.projection = LinearNorm(
            settings.center_channels, normalization, gamma_initializer="zeros", name="projection"
        )

    def call(self, centers, training=False):
        parts = tf.split(self.query_key_value(centers, training=training), self.depths, axis=-1)
        count = centers.shape[1]
        query, key, value = (
            tf.reshape(part, [-1, count, self.num_heads, part.shape[-1] // self.num_heads]) for part in parts
        )
        # One statistic a head: heads are the last axis.
        similarity = self.similarity_norm(tf.einsum("bnhd,bmhd->bnmh", query, key), training=training)
        retrieved = tf.einsum("bnmh,bmhd->bnhd", tf.nn.softmax(similarity, axis=2), value)
        retrieved = tf.reshape(retrieved, [-1, count, self.depths[-1]])
        retrieved = self.activate(self.value_norm(retrieved, training=training))
        return self.projection(retrieved, training=training)


class DecoderLayer(tf.keras.layers.Layer):
    """Pixels [B, h, w, C] and centers [B, N, center_channels] -> updated centers and the rule's `Prediction`."""

    def __init__(
        self,
        settings: TransformerDecoderSettings,
        head_settings: HeadSettings,
        normalization: Normalization,
        name: str | None = None,
    ):
        super().__init__(name=name)
        bottleneck = settings.bottleneck_channels
        self.keep_prob = settings.keep_prob
        self.activate = activation("gelu")
        self.center_projection = LinearNorm(bottleneck, normalization, "gelu", name="center_projection")
        self.pixel_projection = LinearNorm(bottleneck, normalization, "gelu", name="pixel_projection")
        self.clustering = UPDATE_RULES[settings.update_rule](
            bottleneck, settings.value_channels, settings.center_channels, head_settings, normalization
        )
        self.self_attention = SelfAttention(settings, normalization, name="self_attention")
        self.feed_forward = [
            LinearNorm(settings.feed_forward_channels, normalization, "gelu", name="feed_forward1"),
            LinearNorm(settings.center_channels, normalization, gamma_initializer="zeros", name="feed_forward2"),
        ]

    def call(self, pixels, centers, training=False):
        projected_pixels = self._project_pixels(pixels, training)
        projected_centers = self.center_projection(centers, training=training)
        clustered, prediction = self.clustering(projected_pixels, projected_centers, training=training)
        attended = self.self_attention(projected_centers, training=training)
        centers = self.activate(centers + self._drop(clustered, training) + self._drop(attended, training))
        hidden = self.feed_forward[0](centers, training=training)
        hidden = self.feed_forward[1](hidden, training=training)
        return self.activate(centers + self._drop(hidden, training)), prediction

    def _project_pixels(self, pixels, training):
        batch, height, width, channels = shape_of(pixels)
        flat = tf.reshape(self.activate(pixels), [batch, height * width, channels])
        projected = self.pixel_projection(flat, training=training)
        return tf.reshape(projected, [batch, height, width, projected.shape[-1]])

    def _drop(self, branch, training):
        return drop_path(branch, self.keep_prob, training)
