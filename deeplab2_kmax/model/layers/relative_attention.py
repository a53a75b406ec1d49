"""Self-attention over all pixels of a map, with a bias for the offset between two pixels, as in CoAtNet and MOAT."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.initializers import small_normal

HEAD_CHANNELS = 32


class RelativeAttention(tf.keras.layers.Layer):
    """[B, H, W, C] -> softmax(q k / sqrt(32) + bias(offset)) v, projected -> [B, H, W, C].

    Args:
        channels: C, 32 for each head.
        learned_size: side of the map the table of biases was made for; other maps take a resized table. None: no bias.
    """

    def __init__(self, channels: int, learned_size: int | None = None, name: str | None = None):
        super().__init__(name=name)
        if channels % HEAD_CHANNELS:
            raise ValueError(f"attention: expected a multiple of {HEAD_CHANNELS} channels, came {channels}")
        self.heads = channels // HEAD_CHANNELS
        self.channels = channels
        self.learned_size = learned_size
        split = [self.heads, HEAD_CHANNELS]
        self.query, self.key, self.value = (
            HeadProjection([channels], split, name=name) for name in ("query", "key", "value")
        )
        self.projection = HeadProjection(split, [channels], name="projection")

    def build(self, input_shape):
        if self.learned_size:
            offsets = 2 * self.learned_size - 1
            self.relative_position_embedding = self.add_weight(
                "relative_position_embedding", [self.heads, offsets, offsets], initializer=small_normal()
            )
        super().build(input_shape)

    def call(self, x):
        height, width = (x.shape[axis] or tf.shape(x)[axis] for axis in (1, 2))
        pixels = tf.reshape(x, [-1, self.channels])
        query, key, value = (
            self._by_head(project(pixels), height * width) for project in (self.query, self.key, self.value)
        )
        logits = tf.matmul(query * HEAD_CHANNELS**-0.5, key, transpose_b=True)
        if self.learned_size:
            logits += relative_bias(resized_offsets(self.relative_position_embedding, height, width), height, width)
        mixed = tf.transpose(tf.matmul(tf.nn.softmax(logits), value), [0, 2, 1, 3])
        return tf.reshape(self.projection(tf.reshape(mixed, [-1, self.channels])), tf.shape(x))

    def _by_head(self, x, length):
        """[B * length, heads * 32] -> [B, heads, length, 32]."""
        return tf.transpose(tf.reshape(x, [-1, length, self.heads, HEAD_CHANNELS]), [0, 2, 1, 3])


class HeadProjection(tf.keras.layers.Layer):
    """Linear map with bias of flattened channels, [rows, C] -> [rows, D], its weight stored as [*inputs, *outputs].

    Args:
        inputs, outputs: shapes with the products C and D, e.g. [heads, channels of a head].
    """

    def __init__(self, inputs: list[int], outputs: list[int], name: str | None = None):
        super().__init__(name=name)
        self.inputs = inputs
        self.outputs = outputs

    def build(self, input_shape):
        self.weight = self.add_weight("weight", [*self.inputs, *self.outputs], initializer=small_normal())
        self.bias = self.add_weight("bias", self.outputs, initializer="zeros")
        super().build(input_shape)

    def call(self, x):
        kernel = tf.reshape(self.weight, [x.shape[-1], -1])
        return tf.nn.bias_add(tf.matmul(x, kernel), tf.reshape(self.bias, [-1]))


def resized_offsets(table: tf.Tensor, height, width) -> tf.Tensor:
    """Biases by offset, [heads, 2 h - 1, 2 w - 1], resized for maps of height x width, with half-pixel centres."""
    size = [2 * height - 1, 2 * width - 1]
    if table.shape[1:] == size:
        return table
    return tf.squeeze(tf.image.resize(table[..., tf.newaxis], size), -1)


def relative_bias(table: tf.Tensor, height, width) -> tf.Tensor:
    """Biases between all pairs of pixels from those by offset.

    Args:
        table: [heads, 2 * height - 1, 2 * width - 1], entry [n, height - 1 + down, width - 1 + right].
        height, width: of the map, as integers or as scalar tensors.

    Returns:
        [heads, height * width, height * width], entry [n, p, q] for the offset that leads from pixel p to pixel q.
    """
    columns = tf.range(width) - tf.range(width)[:, tf.newaxis] + width - 1
    # [heads, column of p, rows down, column of q]: what is left is a window of rows for each row of p.
    by_column = tf.transpose(tf.gather(table, columns, axis=2), [0, 2, 1, 3])
    if isinstance(height, int):  # Slices copy whole windows; gathering them row by row takes three times as long.
        windows = tf.stack([by_column[:, :, height - 1 - row : 2 * height - 1 - row] for row in range(height)], 1)
    else:
        rows = tf.range(height) - tf.range(height)[:, tf.newaxis] + height - 1
        windows = tf.transpose(tf.gather(by_column, rows, axis=2), [0, 2, 1, 3, 4])
    return tf.reshape(windows, [table.shape[0], height * width, height * width])
