"""Multi-head attention with batch norms (Wang et al., "MaX-DeepLab", CVPR 2021), which all update rules use.

    y = act(norm(softmax(norm(q k^T)) v))

Similarities are not divided by sqrt(depth) but batch-normalized, with one scale for each head. The softmax, and the sum
over values, which can be a sum over all pixels, are float32 in every precision.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """Makes the linear map from the bottleneck to queries, keys or values.

    Args:
        settings: its bottleneck channels are the input channels.
        channels: output channels.
        normalization: settings of the batch norm.
        name: of the layer.
    """
    # Keeps the variance of the features, as is usual for such projections.
    initializer = tf.keras.initializers.TruncatedNormal(stddev=settings.bottleneck_channels**-0.5)
    return LinearNorm(channels, normalization, kernel_initializer=initializer, name=name)


class AttentionBranch(tf.keras.layers.Layer):
    """A residual branch: queries attend to keys, and the values they retrieve are projected.

    The last normalization starts at zero, so a new branch adds nothing.

    Args:
        settings: of the decoder; heads, value channels and activation are used.
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

    def call(
        self, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, training: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the branch.

        Args:
            query: [B, L, key_channels].
            key: [B, M, key_channels].
            value: [B, M, value_channels].
            training: whether batch norms use the statistics of the batch.

        Returns:
            (branch [B, L, output_channels], attention weights [B, heads, L, M], which sum to one over M).
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
        # In inference the batch norm is a scale and a shift for each head. The shift is left out, because the same
        # shift for all keys does not change a softmax. The scale is multiplied into the queries, a smaller tensor than
        # the similarities.
        scale, _ = self.similarity_norm.affine()
        return as_float32(tf.einsum("blhd,bmhd->bhlm", query * tf.cast(scale[:, tf.newaxis], query.dtype), key))

    def _heads(self, x):
        """[B, L, channels] -> [B, L, heads, channels / heads]."""
        return tf.reshape(x, [-1, shape_of(x)[1], self.num_heads, x.shape[-1] // self.num_heads])


def attend_to_both(
    branch: AttentionBranch,
    query: tf.Tensor,
    of_pixels: Sequence[tf.Tensor],
    of_centers: Sequence[tf.Tensor],
    training: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Lets centers attend to pixels and to each other in one softmax.

    Args:
        branch: the attention.
        query: of centers, [B, N, K].
        of_pixels: keys [B, HW, K] and values [B, HW, V] of pixels.
        of_centers: keys [B, N, K] and values [B, N, V] of centers.
        training: whether batch norms use the statistics of the batch.

    Returns:
        (branch [B, N, center_channels], attention of centers to pixels [B, heads, N, HW]). The attention to pixels sums
        to less than one, because the rest goes to centers.
    """
    key, value = (tf.concat(both, axis=1) for both in zip(of_pixels, of_centers))
    attended, weights = branch(query, key, value, training=training)
    return attended, weights[..., : shape_of(of_pixels[0])[1]]
