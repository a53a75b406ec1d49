"""Position-sensitive axial attention (Wang et al., "Axial-DeepLab", ECCV 2020, equation 4).

Attention runs along one axis at a time: first down the columns, then along the rows. So each pixel attends to H + W
pixels, not to H * W. For position o on an axis, with queries q, keys k and values v of each head and learned vectors r
for the relative positions:

    w_op = softmax_p(norm(q_o . k_p) + norm(q_o . r^q_{p-o}) + norm(k_p . r^k_{p-o}))
    y_o  = norm(sum_p w_op v_p) + norm(sum_p w_op r^v_{p-o})

Every summand has a batch norm of its own, in place of the usual scale 1 / sqrt(depth).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deeplab2_kmax.model.layers.convolution import linear
from deeplab2_kmax.model.layers.folding import FoldingLayer
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization, SummedBatchNorm
from deeplab2_kmax.model.layers.precision import add_float32_weight, as_float32
from deeplab2_kmax.model.layers.shapes import shape_of

# Longest distance that has a vector of its own; longer ones share the last. Fixed by DeepLab2's checkpoints.
MAX_DISTANCE = 254


class RelativePositions(tf.keras.layers.Layer):
    """One learned vector for each distance from -254 to 254: a table [509, depth].

    Args:
        depth: length of a vector.
    """

    def __init__(self, depth: int, name: str | None = None):
        super().__init__(name=name)
        self.embeddings = self.add_weight(
            "embeddings", [2 * MAX_DISTANCE + 1, depth], initializer=tf.keras.initializers.TruncatedNormal(stddev=1.0)
        )
        self.built = True

    def of_pairs(self, length: int | tf.Tensor) -> tf.Tensor:
        """The vectors of all pairs of positions on an axis of `length`: [length (from), length (to), depth]."""
        # Where the length is known, NumPy computes the rows of the table now, and the graph gets them as a constant.
        static = isinstance(length, int)
        position = np.arange(length) if static else tf.range(length)
        distance = position[None, :] - position[:, None]
        distance = (np.clip if static else tf.clip_by_value)(distance, -MAX_DISTANCE, MAX_DISTANCE)
        # tf.identity reads the table as it is stored, and in mixed precision casts its 509 rows. Without it the rows
        # would be gathered first, and then length * length of them would be cast.
        return tf.gather(tf.identity(self.embeddings), distance + MAX_DISTANCE)


class AxialAttention(FoldingLayer):
    """Attention along the middle axis: [rows, length, C] -> [rows, length, value_channels].

    Args:
        key_channels: of queries and keys, over all heads; a multiple of `num_heads`.
        value_channels: of values, over all heads; a multiple of `num_heads`.
        normalization: settings of the batch norms.
        num_heads: number of heads.
    """

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

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        length = shape_of(x)[1]
        query, key, value = self._query_key_value(x, length, training)
        attend = self._train if training else self._predict
        output = attend(query, key, value, length)
        return tf.reshape(output, [-1, length, self.value_channels])

    def _train(self, query, key, value, length):
        """The module's formula as it stands.

        Args:
            query, key, value: [rows, length, heads, depth].
            length: of the axis.

        Returns:
            [rows, length, heads, value depth].
        """
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
        """As `_train`, but faster: in inference the batch norms have constant scales and shifts."""
        # The similarities [rows, heads, length, length] are the largest tensors, so their scales are multiplied into
        # queries and keys. Their shifts are left out: a shift that is the same for all p does not change a softmax.
        scale = tf.cast(self.similarity_norm.affine()[0], query.dtype)
        of_content, of_query, of_key = tf.unstack(tf.reshape(scale, [3, self.num_heads, 1]))
        scale, shift = (tf.cast(values, value.dtype) for values in self.output_norm.affine())
        of_value, of_position = tf.unstack(tf.reshape(scale, [2, self.num_heads, -1]))
        similarity = tf.matmul(_heads_first(query * of_content), _heads_first(key), transpose_b=True)
        by_query = _at_each_position(query * of_query, self.query_positions.of_pairs(length), transpose_b=True)
        by_key = _at_each_position(
            key * of_key, tf.transpose(self.key_positions.of_pairs(length), [1, 0, 2]), transpose_b=True
        )
        # Axes: by_query is (o, rows, heads, p) and by_key (p, rows, heads, o), with o and p as in the module's formula.
        by_position = tf.transpose(by_query, [1, 2, 0, 3]) + tf.transpose(by_key, [1, 2, 3, 0])
        weights = tf.cast(tf.nn.softmax(as_float32(similarity + by_position)), value.dtype)
        content = tf.transpose(tf.matmul(weights, _heads_first(value * of_value)), [0, 2, 1, 3])
        position = _at_each_position(tf.transpose(weights, [0, 2, 1, 3]), self.value_positions.of_pairs(length))
        # Not multiplied into the table: that would copy [length, length, heads, depth], as scales differ by head.
        position = tf.transpose(position, [1, 0, 2, 3]) * of_position
        return content + position + tf.reshape(tf.reduce_sum(shift, 0), [self.num_heads, -1])

    def _query_key_value(self, x, length, training):
        if training:
            qkv = self.qkv_norm(linear(x, tf.cast(self.qkv_kernel, x.dtype)), training=True)
        else:
            qkv = linear(x, *self.inference_weights())
        parts = tf.split(qkv, [self.key_channels, self.key_channels, self.value_channels], axis=-1)
        return [tf.reshape(part, [-1, length, self.num_heads, part.shape[-1] // self.num_heads]) for part in parts]

    def combined_weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        scale, shift = self.qkv_norm.affine()
        return self.qkv_kernel * scale, shift


def _heads_first(x: tf.Tensor) -> tf.Tensor:
    """[rows, length, heads, depth] -> [rows, heads, length, depth]."""
    return tf.transpose(x, [0, 2, 1, 3])


def _at_each_position(x: tf.Tensor, matrices: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
    """Multiplies the vectors at each position by a matrix of that position.

    Args:
        x: [rows, length, heads, A].
        matrices: [length, A, B], one for each position; [length, B, A] with `transpose_b`.
        transpose_b: whether the matrices are transposed first.

    Returns:
        [length, rows, heads, B].
    """
    # Rows and heads share the matrix of a position, so they become one axis: one large product for each position.
    length, heads, depth = shape_of(matrices)[0], x.shape[2], shape_of(x)[3]
    positions_first = tf.reshape(tf.transpose(x, [1, 0, 2, 3]), [length, -1, depth])
    product = tf.matmul(positions_first, matrices, transpose_b=transpose_b)
    return tf.reshape(product, [length, -1, heads, shape_of(product)[-1]])


class AxialAttention2D(tf.keras.layers.Layer):
    """Attention down the columns, then along the rows: [B, H, W, C] -> [B, ceil(H / s), ceil(W / s), value_channels].

    With a stride s above 1, every s-th position of an axis is kept after the attention along this axis. So all
    positions are attended to, and the second attention runs on fewer columns.

    Args:
        key_channels, value_channels, normalization: of `AxialAttention`.
        stride: s.
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

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        _, height, width, channels = shape_of(x)
        columns = tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, height, channels])
        columns = self.height_axis(columns, training=training)
        columns = self._thinned(tf.reshape(columns, [-1, width, height, self.value_channels]))
        rows = tf.transpose(columns, [0, 2, 1, 3])
        height = shape_of(rows)[1]
        rows = self.width_axis(tf.reshape(rows, [-1, width, self.value_channels]), training=training)
        return self._thinned(tf.reshape(rows, [-1, height, width, self.value_channels]))

    def _thinned(self, x):
        """Keeps every s-th position of axis 2."""
        return x if self.stride == 1 else x[:, :, :: self.stride]
