"""Whole tensors: the same result by few large steps, for other runtimes than TensorFlow.

These run each step of a loop at a cost that is far above the work in it: OpenVINO took fifty times as long as
TensorFlow. So there are no loops here. Memory is that of all contested cells at their full size, a few times: little
where segments have clear borders, and at worst that of all logits enlarged.

Steps 1 to 3 of the folder's docstring are the same but for two things. The exponentials of the softmax sums are taken
after the interpolation, as these runtimes compute both in one pass, and products of powers in many. And contested
cells, whose logits are there anyway, have their softmax computed from these.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.postprocessing.upsampled_top2.cells import Cells
from deeplab2_kmax.postprocessing.upsampled_top2.peaks import PeakMaps, PixelPeaks, pairs
from deeplab2_kmax.postprocessing.upsampled_top2.uncontested_cells import UncontestedCells

# Values of a stripe of logits. A stripe and what is computed of it are to fit the caches; more of them make the graph
# larger.
_VALUES_AT_ONCE = 2**20


def whole_tensor_peaks(mask_logits: tf.Tensor, size: tuple[int, int], threshold: float, seconds: bool) -> PeakMaps:
    """`two_strongest_slots` by operations that other runtimes have, and are fast at."""
    cells = Cells.between(tuple(mask_logits.shape[1:3]), size)
    slots = mask_logits.shape[-1]
    if cells is None:
        enlarged = tf.compat.v1.image.resize_bilinear(mask_logits, size, align_corners=True)
        peaks = _peaks_of(enlarged)
        return PeakMaps(pairs(peaks, threshold, slots), peaks.score, _peaks_of(mask_logits))
    # Two probabilities of 1/2 or more leave no room for each other.
    seconds = seconds and threshold < 0.5
    top, sums = _by_stripes(mask_logits, cells)
    plain = UncontestedCells(cells, top, 1.0 / sums, slots, threshold)
    # At least one cell: LiteRT crashes where nothing is scattered. Counting as contested changes no result.
    where = tf.where(plain.contested(seconds) | (tf.range(tf.shape(top)[0]) == 0))
    corners = cells.corners(tf.cast(where[:, 0], tf.int32))
    within = cells.interpolate(tf.gather(tf.reshape(mask_logits, [-1, slots]), corners))
    return plain.with_contested(where, PixelPeaks(*(tf.transpose(part) for part in _peaks_of(within, seconds))))


def _by_stripes(mask_logits: tf.Tensor, cells: Cells) -> tuple[tf.Tensor, tf.Tensor]:
    """The strongest slots at the pixels of the logits, int32 [B * h * w], and the softmax sums, [B * h * w, K]."""
    slots, last = mask_logits.shape[-1], cells.height - 1
    rows = max(1, _VALUES_AT_ONCE // (cells.width * slots))
    tops, sums = [], []
    for start in range(0, cells.height, rows):
        end = min(start + rows, cells.height)
        with_next = tf.gather(mask_logits, [min(row, last) for row in range(start, end + 1)], axis=1)
        tops.append(_first_of(with_next[:, :-1], tf.reduce_max(with_next[:, :-1], -1, keepdims=True)))
        # Relative to the largest, no exponential overflows.
        sums.append(_softmax_sums(with_next - tf.reduce_max(with_next, -1, keepdims=True), cells))
    return tf.reshape(tf.concat(tops, 1), [-1]), tf.reshape(tf.concat(sums, 1), [-1, cells.pixels])


def _softmax_sums(logits: tf.Tensor, cells: Cells) -> tf.Tensor:
    """Sums over slots of exp(logits, interpolated), [B, R, w, K], from logits [B, R + 1, w, N]."""
    sums = []
    for row in range(cells.rows):
        left = _between(logits[:, :-1], logits[:, 1:], row / cells.rows)
        right = tf.gather(left, [*range(1, cells.width), cells.width - 1], axis=2)
        for column in range(cells.columns):
            sums.append(tf.reduce_sum(tf.exp(_between(left, right, column / cells.columns)), -1))
    return tf.stack(sums, -1)


def _between(begin: tf.Tensor, end: tf.Tensor, part: float) -> tf.Tensor:
    return begin * (1.0 - part) + end * part if part else begin


def _peaks_of(logits: tf.Tensor, seconds: bool = True) -> PixelPeaks:
    """The peaks of logits [..., N], at [...]."""
    largest = tf.reduce_max(logits, -1, keepdims=True)
    first = _first_of(logits, largest)
    score = 1.0 / tf.reduce_sum(tf.exp(logits - largest), -1)
    if not seconds:
        return PixelPeaks(first, score, tf.zeros_like(first), tf.zeros_like(score))
    # The second slot is the largest one once the first has been taken out.
    others = tf.where(tf.range(logits.shape[-1]) == first[..., tf.newaxis], tf.float32.min, logits)
    second_largest = tf.reduce_max(others, -1, keepdims=True)
    second_score = score * tf.exp(second_largest - largest)[..., 0]
    return PixelPeaks(first, score, _first_of(others, second_largest), second_score)


def _first_of(values: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    """The place of the first of the largest values on the last axis, as argmax finds it, which takes OpenVINO longer.

    Args:
        values: float32 [..., N].
        largest: float32 [..., 1], the largest of them.

    Returns:
        int32 [...].
    """
    number = tf.range(values.shape[-1], dtype=tf.float32)
    return tf.cast(tf.reduce_min(tf.where(values == largest, number, values.shape[-1]), -1), tf.int32)
