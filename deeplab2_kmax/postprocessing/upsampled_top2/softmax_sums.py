"""Softmax sums: the denominator of the softmax over slots at every pixel of the enlarged map.

The exponential of an interpolated logit is a product of powers of exponentials. Between a left neighbor a and a right
neighbor b, p of s columns from a, exp(((s - p) a + p b) / s) = exp(a / s) ** (s - p) * exp(b / s) ** p, and likewise
over rows. So exponentials are taken at the pixels of the logits only; each of the many pixels in between costs a few
products for each slot.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2.cells import Cells

# Logit pixels in a chunk. With fewer, their slots fit a processor's cache; with more, there are fewer steps, each of
# which has a cost of its own.
_PIXELS_AT_ONCE = 700
# Chunks worked on at the same time. Most operations within a chunk are too small to use more than one thread.
_IN_PARALLEL = 2


def softmax_sums(mask_logits: tf.Tensor, cells: Cells) -> tuple[tf.Tensor, tf.Tensor]:
    """The softmax sums at all pixels of the map, and the strongest slot at each pixel of the logits.

    Args:
        mask_logits: float32 [B, h, w, N] with static h, w and N.
        cells: the cells of these logits.

    Returns:
        float32 [B * h * w, K], sums over slots of exp(logit - m), where m is the largest logit of each logit pixel,
        interpolated like the logits. In cells with the same strongest slot at all corners they are at least 1. In
        others they may underflow to 0 where logits differ by hundreds from pixel to pixel. Beyond the map they are 1.
        int32 [B*h*w], the slot of the largest logit at each logit pixel.
    """
    width, slots = cells.width, mask_logits.shape[-1]
    logits = tf.reshape(mask_logits, [-1, width, slots])
    count = tf.shape(logits)[0] - 1
    rows = min(max(1, _PIXELS_AT_ONCE // width), cells.height - 1)
    chunks = (count + rows - 1) // rows

    # The rows of all images are worked on as one long list; each but the very last has a row below. (The last row of an
    # image has the next image's first row below, which is harmless: see `_sums_of_rows`.) A chunk is a slice along the
    # first axis, which needs no copy, unlike gathered rows. So that all chunks have one size, the last one overlaps the
    # one before.
    def chunk(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with_next = tf.slice(logits, [tf.minimum(index * rows, count - rows), 0, 0], [rows + 1, width, slots])
        return _sums_of_rows(tf.reshape(with_next, [-1, slots]), cells, rows * width)

    specs = tf.TensorSpec([rows * width, cells.pixels]), tf.TensorSpec([rows * width], tf.int32)
    by_chunk = tf.map_fn(chunk, tf.range(chunks), fn_output_signature=specs, parallel_iterations=_IN_PARALLEL)
    last_row = _sums_of_rows(tf.tile(logits[-1], [2, 1]), cells, width)

    overlap = (chunks * rows - count) * width
    sums, top = (
        tf.concat([tf.reshape(part[:-1], [-1, *part.shape[2:]]), part[-1][overlap:], last], 0)
        for part, last in zip(by_chunk, last_row)
    )
    outside = tf.tile(~cells.inside(), [(count + 1) // cells.height, 1])
    return tf.where(outside, 1.0, sums), top


def _sums_of_rows(logits: tf.Tensor, cells: Cells, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """`softmax_sums` of some rows.

    Pixels are numbered row by row, so that the neighbor to the right is the next pixel and the neighbor below the w-th
    next: neighbors are slices, not copies. At the end of a row the next pixel is no neighbor, but what is computed from
    it belongs to pixels beyond the map.

    Args:
        logits: float32 [count + w, N], whole rows of logits; the last row serves as a neighbor only.
        cells: the cells of these logits.
        count: number of pixels in the other rows.

    Returns:
        float32 [count, K] and int32 [count].
    """
    # Relative to the largest, no exponential overflows. The power 1 / K is what all products below are made of.
    largest = tf.reduce_max(logits, -1, keepdims=True)
    powers = _powers(tf.exp((logits - largest) / cells.pixels), cells.rows)
    sums = []
    for row in range(cells.rows):
        at_row = _between(powers, row, cells.width, count)
        row_powers = _powers(at_row, cells.columns)
        for column in range(cells.columns):
            total = tf.reduce_sum(_between(row_powers, column, 1, count - 1 if column else count), -1)
            sums.append(tf.pad(total, [[0, 1]], constant_values=1.0) if column else total)
    return tf.stack(sums, -1), tf.argmax(logits[:count], -1, output_type=tf.int32)


def _powers(values: tf.Tensor, largest: int) -> list[tf.Tensor]:
    """Powers of values: entry n is the n-th power, up to the `largest`; entry 0 is not used."""
    powers = [values, values]
    for exponent in range(2, largest + 1):
        powers.append(powers[exponent // 2] * powers[exponent - exponent // 2])
    return powers


def _between(powers: list[tf.Tensor], step: int, offset: int, count: int) -> tf.Tensor:
    """Interpolates geometrically between each of `count` values and the value `offset` entries after it.

    Args:
        powers: powers of the values, up to the number of steps from one to the other.
        step: how many steps from the first value.
        offset: distance of the two values along the first axis.
        count: how many values to begin at.
    """
    steps = len(powers) - 1
    if step == 0:
        return powers[steps][:count]
    return powers[steps - step][:count] * powers[step][offset : offset + count]
