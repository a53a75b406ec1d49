"""Who gets which pixel when masks are painted one over another.

Painting needs no canvas if a pixel lies in two masks at most, as it does for pixel thresholds of 1/3 and more. The
pixels mask j finds free are then its area less its overlaps with the accepted masks before it: one table of overlaps
[slots, slots], counted once, settles which masks are accepted, and each pixel goes to the first of them it lies in.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.postprocessing import segments
from deeplab2_kmax.postprocessing.upsampled_top2.enlarged_rows import log_sums
from deeplab2_kmax.postprocessing.upsampled_top2.peaks import SlotPeaks


class Painting(NamedTuple):
    """Who got which pixel.

    Attributes:
        entry: int32 [B,H,W], the entry of the tables below that holds for a pixel.
        owner: int32 [B,K], the slot that owns the pixels of an entry; N for none.
        best: int32 [B,K], the most probable slot there, whether it owns them or not.
        areas: float32 [B,N], pixels each slot owns.
    """

    entry: tf.Tensor
    owner: tf.Tensor
    best: tf.Tensor
    areas: tf.Tensor


def paint_pairs(peaks: SlotPeaks, rank: tf.Tensor, paintable: tf.Tensor, free_fraction: float) -> Painting:
    """Paints masks of which at most two lie over one another at any pixel.

    Args:
        peaks: the slots whose masks a pixel lies in.
        rank: int32 [B,N], the order of painting, from 0.
        paintable: bool [B,N], slots whose masks may be painted at all.
        free_fraction: a mask is painted if more than this fraction of it is free at its turn.
    """
    slots = rank.shape[-1]
    size = slots * (slots + 2)
    counts = tf.reshape(segments.count_by_image(peaks.pair, size), [-1, slots, slots + 2])
    owner = _owner_of_pairs(_accepted(counts, rank, paintable, free_fraction), rank)
    best = tf.tile(tf.range(size)[tf.newaxis] // (slots + 2), [tf.shape(rank)[0], 1])
    return Painting(peaks.pair, tf.reshape(owner, [-1, size]), best, _owned_areas(counts, owner))


def _accepted(counts: tf.Tensor, rank: tf.Tensor, paintable: tf.Tensor, free_fraction: float) -> tf.Tensor:
    """Which masks are painted, bool [B,N], given pixels by pair of slots, float32 [B,N,N+2]; see `SlotPeaks.pair`.

    Whether a mask is accepted depends on those before it only, so repeating the rule for all masks at once settles at
    least one more mask each time, and all of them once nothing changes. A few rounds do.
    """
    in_both = counts[:, :, :-2]
    areas = tf.reduce_sum(counts[:, :, :-1], 2) + tf.reduce_sum(in_both, 1)
    in_both += tf.linalg.matrix_transpose(in_both)
    overlaps = tf.where(rank[:, tf.newaxis, :] < rank[:, :, tf.newaxis], in_both, 0.0)

    def more(accepted, changed):
        del accepted
        return changed

    def again(accepted, changed):
        del changed
        taken = tf.linalg.matvec(overlaps, tf.cast(accepted, tf.float32))
        now = paintable & (areas - taken > areas * free_fraction)
        return now, tf.reduce_any(now != accepted)

    shapes = tf.TensorShape([None, rank.shape[-1]]), tf.TensorShape([])
    return tf.while_loop(more, again, (paintable, tf.constant(True)), shape_invariants=shapes)[0]


def _owner_of_pairs(accepted: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
    """The slot that gets the pixels of each pair of slots, int32 [B,N,N+2]; N where none does."""
    slots = accepted.shape[-1]
    # Slots that are not painted come last, "no slot" among them.
    turn = tf.where(accepted, rank, slots)
    first, second = tf.range(slots)[:, tf.newaxis], tf.range(slots + 2)[tf.newaxis, :]
    first_turn = tf.where(second <= slots, turn[:, :, tf.newaxis], slots)
    second_turn = tf.pad(turn, [[0, 0], [0, 2]], constant_values=slots)[:, tf.newaxis, :]
    earlier = tf.where(first_turn < second_turn, first, second)
    return tf.where(tf.minimum(first_turn, second_turn) < slots, earlier, slots)


def _owned_areas(counts: tf.Tensor, owner: tf.Tensor) -> tf.Tensor:
    """Pixels each slot gets, float32 [B,N], from the pixels and owners of pairs of slots."""
    slots = tf.range(owner.shape[1])
    as_first = tf.reduce_sum(tf.where(owner == slots[:, tf.newaxis], counts, 0.0), 2)
    return as_first + tf.reduce_sum(tf.where(owner[:, :, :-2] == slots, counts[:, :, :-2], 0.0), 1)


def paint_one_by_one(
    mask_logits: tf.Tensor,
    peaks: SlotPeaks,
    rank: tf.Tensor,
    paintable: tf.Tensor,
    free_fraction: float,
    pixel_confidence: float,
) -> Painting:
    """Paints masks of any overlap at full resolution, one after another: for thresholds below 1/3, and slow.

    Args:
        mask_logits: float32 [B,h,w,N].
        peaks: their peaks at full resolution.
        rank: int32 [B,N], the order of painting, from 0.
        paintable: bool [B,N], slots whose masks may be painted at all.
        free_fraction: a mask is painted if more than this fraction of it is free at its turn.
        pixel_confidence: masks are where a slot's probability is above this.
    """
    size, slots = peaks.score.shape[1:], rank.shape[-1]
    normalizers = log_sums(mask_logits, tuple(size))
    order = tf.argsort(rank)

    def paint_next(turn, canvas):
        slot = order[:, turn]
        chosen = tf.gather(mask_logits, slot[:, tf.newaxis], axis=3, batch_dims=1)
        enlarged = tf.compat.v1.image.resize_bilinear(chosen, size, align_corners=True)[..., 0]
        mask = tf.exp(enlarged - normalizers) > pixel_confidence
        free = mask & (canvas == slots)
        area, free_area = (tf.reduce_sum(tf.cast(m, tf.float32), [1, 2]) for m in (mask, free))
        painted = (free_area > area * free_fraction) & tf.gather(paintable, slot, batch_dims=1)
        free &= painted[:, tf.newaxis, tf.newaxis]
        return turn + 1, tf.where(free, slot[:, tf.newaxis, tf.newaxis], canvas)

    empty = tf.fill(tf.shape(peaks.pair), slots)
    shapes = tf.TensorShape([]), tf.TensorShape([None, *size])
    _, canvas = tf.while_loop(
        lambda turn, _: turn < slots, paint_next, (tf.constant(0), empty), shape_invariants=shapes
    )
    # One table serves both the slot that owns a pixel and the one that is the most probable there.
    best = peaks.pair // (slots + 2)
    number = tf.tile(tf.range(slots * (slots + 1))[tf.newaxis], [tf.shape(rank)[0], 1])
    areas = segments.count_by_image(canvas, slots + 1)[:, :-1]
    return Painting(best * (slots + 1) + canvas, number % (slots + 1), number // (slots + 1), areas)
