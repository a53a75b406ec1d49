"""Position-sensitive axial attention (Wang et al., "Axial-DeepLab", ECCV 2020, equation 4).

Attention runs along one axis at a time: first down the columns, then along the rows. Along an axis, with queries q,
keys k and values v of each head and learned relative positions r,

    y_o = sum_p softmax_p(norm(q_o . k_p) + norm(q_o . r^q_{p-o}) + norm(k_p . r^k_{p-o})) (v_p + r^v_{p-o})

where every summand is batch-normalized on its own.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deeplab2_kmax.model.layers.convolution import linear
from deeplab2_kmax.model.layers.folding import FoldingLayer
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization, SummedBatchNorm
from deeplab2_kmax.model.layers.precision import add_float32_weight, as_float32
from deeplab2_kmax.model.layers.shapes import shape_of

# Longest distance that has an embedding of its own; further ones share the last.
MAX_DISTANCE = 254


class RelativePositions(tf.keras.layers.Layer):
    """One learned vector for each distance -254 .. 254: a table [509, depth]."""

    def __init__(self, depth: int, name: str | None = None):
        super().__init__(name=name)
        self.embeddings = self.add_weight(
            "embeddings", [2 * MAX_DISTANCE + 1, depth], initializer=tf.keras.initializers.TruncatedNormal(stddev=1.0)
        )
        self.built = True

    def of_pairs(self, length):
        """[length (from), length (to), depth]: the vectors of all pairs of positions."""
        # Where the length is known, so are the rows: a constant in place of the operations that compute it.
        clip, position = (
            (np.clip, np.arange(length)) if isinstance(length, int) else (tf.clip_by_value, tf.range(length))
        )
        distance = clip(position[None, :] - position[:, None], -MAX_DISTANCE, MAX_DISTANCE)
        return tf.gather(tf.identity(self.embeddings), distance + MAX_DISTANCE)


class AxialAttention(FoldingLayer):
    """Attention along the middle axis: [rows, length, C] -> [rows, length, value_channels]."""

    def __init__(
        self,
        key_channels: int,
        value_channels: int,
        normalization: Normalization,
        num_heads: int = 8,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.key_channels = key_channels
        self.value_channels = value_channels
        self.num_heads = num_heads
        key_depth = key_channels // num_heads
        value_depth = value_channels // num_heads
        self.qkv_norm = BatchNorm(normalization, name="qkv_norm")
        self.similarity_norm = SummedBatchNorm(normalization, 3, [1, num_heads, 1, 1], name="similarity_norm")
        self.output_norm = SummedBatchNorm(normalization, 2, [1, num_heads, 1, value_depth], name="output_norm")
        self.query_positions = RelativePositions(key_depth, name="query_positions")
        self.key_positions = RelativePositions(key_depth, name="key_positions")
        self.value_positions = RelativePositions(value_depth, name="value_positions")

    def build(self, input_shape):
        channels = input_shape[-1]
        self.qkv_kernel = add_float32_weight(
            self,
            "qkv_kernel",
            [channels, 2 * self.key_channels + self.value_channels],
            tf.keras.initializers.TruncatedNormal(stddev=channels**-0.5),
        )
        self.qkv_norm.build([None, 2 * self.key_channels + self.value_channels])
        super().build(input_shape)

    def call(self, x, training=False):
        length = shape_of(x)[1]
        attend = self._train if training else self._predict
        output = attend(*self._query_key_value(x, length, training), length)
        return tf.reshape(output, [-1, length, self.value_channels])

    def _train(self, query, key, value, length):
        """Queries, keys and values [rows, length, heads, depth] -> [rows, length, heads, value depth]."""
        similarity = self.similarity_norm(
            [
                tf.einsum("rlhd,rmhd->rhlm", query, key),
                tf.einsum("rlhd,lmd->rhlm", query, self.query_positions.of_pairs(length)),
                tf.einsum("rmhd,lmd->rhlm", key, self.key_positions.of_pairs(length)),
            ],
            training=True,
        )
        weights = tf.cast(tf.nn.softmax(similarity), value.dtype)
        output = self.output_norm(
            [
                tf.einsum("rhlm,rmhd->rhld", weights, value),
                tf.einsum("rhlm,lmd->rhld", weights, self.value_positions.of_pairs(length)),
            ],
            training=True,
        )
        return tf.transpose(tf.cast(output, value.dtype), [0, 2, 1, 3])

    def _predict(self, query, key, value, length):
        """As `_train`, with the scales of the norms on queries, keys and values, which are the smaller tensors.

        The similarities' shifts are left out: they are the same for all positions, to which softmax is blind.
        """
        scale = tf.cast(self.similarity_norm.affine()[0], query.dtype)
        of_content, of_query, of_key = tf.unstack(tf.reshape(scale, [3, self.num_heads, 1]))
        scale, shift = (tf.cast(values, value.dtype) for values in self.output_norm.affine())
        of_value, of_position = tf.unstack(tf.reshape(scale, [2, self.num_heads, -1]))
        similarity = tf.matmul(_heads_first(query * of_content), _heads_first(key), transpose_b=True)
        by_query = _at_each_position(query * of_query, self.query_positions.of_pairs(length), transpose_b=True)
        by_key = _at_each_position(
            key * of_key, tf.transpose(self.key_positions.of_pairs(length), [1, 0, 2]), transpose_b=True
        )
        by_position = tf.transpose(by_query, [1, 2, 0, 3]) + tf.transpose(by_key, [1, 2, 3, 0])
        weights = tf.cast(tf.nn.softmax(as_float32(similarity + by_position)), value.dtype)
        content = tf.transpose(tf.matmul(weights, _heads_first(value * of_value)), [0, 2, 1, 3])
        position = _at_each_position(tf.transpose(weights, [0, 2, 1, 3]), self.value_positions.of_pairs(length))
        position = tf.transpose(position, [1, 0, 2, 3]) * of_position
        return content + position + tf.reshape(tf.reduce_sum(shift, 0), [self.num_heads, -1])

    def _query_key_value(self, x, length, training):
        if training:
            qkv = self.qkv_norm(linear(x, tf.cast(self.qkv_kernel, x.dtype)), training=True)
        else:
            qkv = linear(x, *self.inference_weights())
        parts = tf.split(qkv, [self.key_channels, self.key_channels, self.value_channels], axis=-1)
        return [tf.reshape(part, [-1, length, self.num_heads, part.shape[-1] // self.num_heads]) for part in parts]

    def combined_weights(self):
        scale, shift = self.qkv_norm.affine()
        return self.qkv_kernel * scale, shift


def _heads_first(x):
    """[rows, length, heads, depth] -> [rows, heads, length, depth]."""
    return tf.transpose(x, [0, 2, 1, 3])


def _at_each_position(x, matrices, transpose_b=False):
    """x [rows, length, heads, A], one matrix [A, B] a position [length, A, B] -> [length, rows, heads, B].

    Its rows and heads are what each matrix is multiplied with.
    """
    length, heads, depth = shape_of(matrices)[0], x.shape[2], shape_of(x)[3]
    positions_first = tf.reshape(tf.transpose(x, [1, 0, 2, 3]), [length, -1, depth])
    product = tf.matmul(positions_first, matrices, transpose_b=transpose_b)
    return tf.reshape(product, [length, -1, heads, shape_of(product)[-1]])


class AxialAttention2D(tf.keras.layers.Layer):
    """Attention down the columns, then along the rows: [B, H, W, C] -> [B, ceil(H / s), ceil(W / s), value_channels].

    With a stride s above 1 the positions of an axis are thinned out after the attention along it, so all of them are
    attended to.
    """

    def __init__(
        self,
        key_channels: int,
        value_channels: int,
        normalization: Normalization,
        stride: int = 1,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.value_channels = value_channels
        self.stride = stride
        self.height_axis = AxialAttention(key_channels, value_channels, normalization, name="height_axis")
        self.width_axis = AxialAttention(key_channels, value_channels, normalization, name="width_axis")

    def call(self, x, training=False):
        _, height, width, channels = shape_of(x)
        columns = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, height, channels])
        columns = self.height_axis(columns, training=training)
        columns = self._thinned(tf.reshape(columns, [-1, width, height, self.value_channels]))
        rows = tf.transpose(columns, [0, 2, 1, 3])
        height = shape_of(rows)[1]
        rows = self.width_axis(tf.reshape(rows, [-1, width, self.value_channels]), training=training)
        return self._thinned(tf.reshape(rows, [-1, height, width, self.value_channels]))

    def _thinned(self, x):
        return x if self.stride == 1 else x[:, :, :: self.stride]
