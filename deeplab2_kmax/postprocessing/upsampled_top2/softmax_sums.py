"""The denominator of the softmax over slots at every full-resolution pixel.

A bilinear interpolation of logits is a product of powers of their exponentials. Between a left neighbour a and a right
neighbour b, at p of s columns, exp(((s - p) a + p b) / s) = exp(a / s) ** (s - p) * exp(b / s) ** p, and likewise over
rows. So exponentials are taken at the pixels of the logits only; each of the many more pixels in between costs a few
products a slot.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2.cells import Cells

# Logit pixels worked on at once: their slots should fit a processor's cache, and few steps should be many pixels.
_PIXELS_AT_ONCE = 700
# Chunks in flight at once, each working on one thread most of the time.
_IN_PARALLEL = 2


def softmax_sums(mask_logits: tf.Tensor, cells: Cells) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums over slots of the exponentials of enlarged mask logits, and the largest slots at the logits' own pixels.

    Args:
        mask_logits: float32 [B,h,w,N] with static h, w and N.
        cells: the cells of these logits.

    Returns:
        float32 [B*h*w,K], sums of exp(logit - m), where m is the largest logit of a pixel, interpolated like the
        logits. They are at least 1 in a cell with the same largest slot at its four corners, and may underflow to 0
        where logits differ by hundreds from pixel to pixel. 1 at pixels outside the map.
        int32 [B*h*w], the slot of the largest logit.
    """
    width, slots = cells.width, mask_logits.shape[-1]
    logits = tf.reshape(mask_logits, [-1, width, slots])
    count = tf.shape(logits)[0] - 1
    rows = min(max(1, _PIXELS_AT_ONCE // width), cells.height - 1)
    chunks = (count + rows - 1) // rows

    # All rows but the very last have a row below. Slices along the first axis are not copied, unlike gathered rows;
    # so that all are of one size, the last chunk overlaps the one before.
    def chunk(index):
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
    """`softmax_sums` of the first `count` pixels of logits [count+w,N]: whole rows, the last being a neighbour only.

    Pixels go by one running number, so that the neighbour to the right is the next one and the neighbour below the
    w-th next one: neighbours are slices, not copies. Wrong neighbours at the borders only spoil pixels outside the map.
    """
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
    """Powers 1 to `largest` of values; entry n is the n-th power, entry 0 is not used."""
    powers = [values, values]
    for exponent in range(2, largest + 1):
        powers.append(powers[exponent // 2] * powers[exponent - exponent // 2])
    return powers


def _between(powers: list[tf.Tensor], step: int, offset: int, count: int) -> tf.Tensor:
    """The product of powers that stands `step` steps of the way from each of `count` values to the one at `offset`."""
    steps = len(powers) - 1
    if step == 0:
        return powers[steps][:count]
    return powers[steps - step][:count] * powers[step][offset : offset + count]
