"""Self-attention over all pixels of a map, with a bias for the offset between two pixels, as in CoAtNet and MOAT."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.initializers import small_normal
from deeplab2_kmax.model.layers.precision import add_float32_weight, as_float32

HEAD_CHANNELS = 32
# How many attention logits of one image are computed at a time (see `RelativeAttention._chunks`).
_LOGITS_AT_ONCE = 4_000_000


class RelativeAttention(tf.keras.layers.Layer):
    """softmax(q k / sqrt(32) + bias(offset)) v, projected: [B, H, W, C] -> [B, H, W, C].

    Args:
        channels: C, 32 for each head.
        learned_size: side of the square map that the table of biases was made for; maps of other sizes take a resized
            table. None: no bias.

    Raises:
        ValueError: `channels` is not a multiple of 32.
    """

    def __init__(self, channels: int, learned_size: int | None = None, name: str | None = None):
        super().__init__(name=name)
        if channels % HEAD_CHANNELS:
            raise ValueError(f"attention: expected a multiple of {HEAD_CHANNELS} channels, got {channels}")
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
            self.relative_position_embedding = add_float32_weight(
                self, "relative_position_embedding", [self.heads, offsets, offsets], small_normal()
            )
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        height, width = (x.shape[axis] or tf.shape(x)[axis] for axis in (1, 2))
        pixels = tf.reshape(x, [-1, self.channels])
        query, key, value = (
            self._by_head(project(pixels), height * width) for project in (self.query, self.key, self.value)
        )
        # Computed at every call, so that the table is trained. (DeepLab2 computes the biases once, when the model is
        # made, so that there the table is neither trained nor read from a checkpoint.) Each chunk of rows cuts out what
        # it needs.
        biases = None
        if self.learned_size:
            biases = biases_by_column(resized_offsets(self.relative_position_embedding, height, width), width)
        attended = []
        for first, count in self._chunks(height, width):
            some = query[:, :, first * width : (first + count) * width] * HEAD_CHANNELS**-0.5
            logits = as_float32(tf.matmul(some, key, transpose_b=True))
            if biases is not None:
                logits += bias_of_rows(biases, first, count, height)
            attended.append(tf.matmul(tf.cast(tf.nn.softmax(logits), value.dtype), value))
        mixed = tf.transpose(tf.concat(attended, 2), [0, 2, 1, 3])
        return tf.reshape(self.projection(tf.reshape(mixed, [-1, self.channels])), tf.shape(x))

    def _chunks(self, height, width):
        """(first row, number of rows) of each group of queries that attend at the same time."""
        # All logits at once would take memory for the square of the number of pixels. A few megabytes at a time stay in
        # the cache and use the same memory again, which halves the time on a CPU. A map of unknown size cannot be cut
        # up when the graph is made.
        if not (isinstance(height, int) and isinstance(width, int)):
            return [(0, height)]
        rows = max(_LOGITS_AT_ONCE // (self.heads * height * width**2), 1)
        return [(first, min(rows, height - first)) for first in range(0, height, rows)]

    def _by_head(self, x, length):
        """[B * length, heads * 32] -> [B, heads, length, 32]."""
        return tf.transpose(tf.reshape(x, [-1, length, self.heads, HEAD_CHANNELS]), [0, 2, 1, 3])


class HeadProjection(tf.keras.layers.Layer):
    """Linear map with bias: [rows, C] -> [rows, D].

    The weight is stored in DeepLab2's shape, which tells heads and channels of a head apart: [*inputs, *outputs].

    Args:
        inputs: stored shape of the input channels; its product is C.
        outputs: stored shape of the output channels; its product is D. For example [heads, channels of a head].
    """

    def __init__(self, inputs: list[int], outputs: list[int], name: str | None = None):
        super().__init__(name=name)
        self.inputs = inputs
        self.outputs = outputs

    def build(self, input_shape):
        self.weight = self.add_weight("weight", [*self.inputs, *self.outputs], initializer=small_normal())
        self.bias = self.add_weight("bias", self.outputs, initializer="zeros")
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        kernel = tf.reshape(self.weight, [x.shape[-1], -1])
        return tf.nn.bias_add(tf.matmul(x, kernel), tf.reshape(self.bias, [-1]))


def resized_offsets(table: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Resizes a table of biases for maps of another size.

    Args:
        table: [heads, 2 h - 1, 2 w - 1], biases by the offset from one pixel to another.
        height, width: of the map.

    Returns:
        [heads, 2 height - 1, 2 width - 1].
    """
    size = [2 * height - 1, 2 * width - 1]
    if table.shape[1:] == size:
        return table
    # With half-pixel centers, not with aligned corners as feature maps are resized here: DeepLab2 does so.
    return tf.squeeze(tf.image.resize(table[..., tf.newaxis], size), -1)


def biases_by_column(table: tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Looks up the horizontal offset of every pair of columns.

    Args:
        table: [heads, 2 h - 1, 2 w - 1], biases by offset, for maps of h x w.
        width: w.

    Returns:
        [heads, w (from), 2 h - 1, w (to)].
    """
    columns = tf.range(width) - tf.range(width)[:, tf.newaxis] + width - 1
    return tf.transpose(tf.gather(table, columns, axis=2), [0, 2, 1, 3])


def bias_of_rows(biases: tf.Tensor, first: int, count: int | tf.Tensor, height: int | tf.Tensor) -> tf.Tensor:
    """Looks up the biases between the pixels of some rows and all pixels.

    Args:
        biases: from `biases_by_column`, for maps of height x width.
        first, count: the first row and the number of rows. Where count is a tensor, all rows are meant.
        height: of the map.

    Returns:
        [heads, count * width, height * width], entry [n, p, q] for the offset that leads from pixel p to pixel q.
    """
    heads, width = biases.shape[0], tf.shape(biases)[1]
    if isinstance(count, int) and isinstance(height, int):
        # The vertical offsets from one row to all rows follow each other in the table, so a slice has them all. A
        # gather takes three times as long.
        tops = [height - 1 - row for row in range(first, first + count)]
        windows = tf.stack([biases[:, :, top : top + height] for top in tops], 1)
    else:
        rows = tf.range(height) - tf.range(height)[:, tf.newaxis] + height - 1
        windows = tf.transpose(tf.gather(biases, rows, axis=2), [0, 2, 1, 3, 4])
    return tf.reshape(windows, [heads, count * width, height * width])
