"""Multi-head attention with batch norms (Wang et al., "MaX-DeepLab", CVPR 2021), as all update rules use it.

    y = act(norm(softmax(norm(q k^T)) v))

Similarities are batch-normalized, one scale for each head, instead of scaled by 1 / sqrt(depth). The softmax and the
sum of the values, which may be over all pixels, are float32 in every precision.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.convolution import LinearNorm
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization
from deeplab2_kmax.model.layers.precision import as_float32
from deeplab2_kmax.model.layers.shapes import shape_of
from deeplab2_kmax.model.transformer_decoder.settings import TransformerDecoderSettings


def attention_projection(
    settings: TransformerDecoderSettings, channels: int, normalization: Normalization, name: str
) -> LinearNorm:
    """Linear map from the bottleneck to queries, keys and values, initialized as is usual for them."""
    initializer = tf.keras.initializers.TruncatedNormal(stddev=settings.bottleneck_channels**-0.5)
    return LinearNorm(channels, normalization, kernel_initializer=initializer, name=name)


class AttentionBranch(tf.keras.layers.Layer):
    """A residual branch by attention: queries gather the values of keys; what they get is projected.

    The last normalization starts at zero, so a new branch adds nothing.

    Args:
        settings: its heads, key and value channels and activation are used.
        output_channels: of the projection.
        normalization: settings of the batch norms.
    """

    def __init__(
        self,
        settings: TransformerDecoderSettings,
        output_channels: int,
        normalization: Normalization,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.num_heads = settings.num_heads
        self.activate = activation(settings.activation)
        depth = settings.value_channels // self.num_heads
        self.similarity_norm = BatchNorm(normalization, axis=1, name="similarity_norm")
        self.similarity_norm.build([None, self.num_heads, None, None])
        self.value_norm = BatchNorm(normalization, shape=[1, self.num_heads, 1, depth], name="value_norm")
        self.projection = LinearNorm(output_channels, normalization, gamma_initializer="zeros", name="projection")

    def call(self, query, key, value, training=False):
        """query [B, L, key_channels], key [B, M, key_channels], value [B, M, value_channels].

        Returns the branch [B, L, output_channels] and the attention weights [B, heads, L, M], of sum one over M.
        """
        weights = tf.nn.softmax(self._similarity(query, key, training))
        retrieved = tf.einsum("bhlm,bmhd->blhd", weights, as_float32(self._heads(value)))
        retrieved = tf.reshape(retrieved, [-1, shape_of(query)[1], value.shape[-1]])
        retrieved = self.activate(self.value_norm(retrieved, training=training), training)
        return self.projection(retrieved, training=training), weights

    def _similarity(self, query, key, training):
        query, key = self._heads(query), self._heads(key)
        if training:
            return self.similarity_norm(as_float32(tf.einsum("blhd,bmhd->bhlm", query, key)), training=True)
        # A shift common to a whole row changes no softmax, so the scale is all there is, and queries are smaller.
        scale, _ = self.similarity_norm.affine()
        return as_float32(tf.einsum("blhd,bmhd->bhlm", query * tf.cast(scale[:, tf.newaxis], query.dtype), key))

    def _heads(self, x):
        """[B, L, channels] -> [B, L, heads, channels / heads]."""
        return tf.reshape(x, [-1, shape_of(x)[1], self.num_heads, x.shape[-1] // self.num_heads])


def attend_to_both(
    branch: AttentionBranch, query, of_pixels, of_centers, training: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Centers attend to pixels and centers in one softmax.

    query [B, N, K]; of_pixels, of_centers: (keys, values) of [B, HW, ...] and [B, N, ...]. Returns the branch
    [B, N, center_channels] and the attention of centers to pixels [B, heads, N, HW] (of sum below one over pixels).
    """
    key, value = (tf.concat(both, axis=1) for both in zip(of_pixels, of_centers))
    attended, weights = branch(query, key, value, training=training)
    return attended, weights[..., : shape_of(of_pixels[0])[1]]
