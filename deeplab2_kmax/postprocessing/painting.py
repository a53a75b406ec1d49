"""Painting: which mask gets which pixel when masks are painted in turn, each on the pixels that are still free.

A mask is painted only if more than a fraction of its pixels is free at its turn; else it is left out altogether.

If a pixel lies in two masks at most, as with pixel thresholds of 1/3 and more, no canvas is needed. Of a mask's pixels,
those that are taken at its turn are its overlaps with the masks painted before, and no pixel lies in two such overlaps.
So the number of free ones is its area minus these overlaps. One table of overlaps [slots, slots], counted once, settles
which masks are painted, and each pixel goes to the first painted mask that it lies in. `paint_pairs` does this;
`paint_one_by_one` is for lower thresholds and does paint on a canvas.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.postprocessing import segments
from deeplab2_kmax.postprocessing.upsampled_top2 import PeakMaps, log_sums


class Painting(NamedTuple):
    """The result of painting: tables with K entries, and which entry holds for each pixel.

    Attributes:
        entry: int32 [B, H, W], the entry of the tables below that holds for each pixel.
        owner: int32 [B, K], the slot that owns the pixels of an entry; N where none does.
        best: int32 [B, K], the most probable slot at these pixels, whether it owns them or not.
        areas: float32 [B, N], pixels that each slot owns.
    """

    entry: tf.Tensor
    owner: tf.Tensor
    best: tf.Tensor
    areas: tf.Tensor


def paint_pairs(
    peaks: PeakMaps, rank: tf.Tensor, paintable: tf.Tensor, free_fraction: float, portable: bool = False
) -> Painting:
    """Paints masks of which no three overlap at any pixel.

    Args:
        peaks: the slots whose masks each pixel lies in.
        rank: int32 [B, N], the order of painting, from 0.
        paintable: bool [B, N], slots whose masks may be painted at all.
        free_fraction: a mask is painted if more than this fraction of it is free at its turn.
        portable: see `PostprocessingSettings`.
    """
    slots = rank.shape[-1]
    # All that matters about a pixel is its pair of slots. So pixels are counted by pairs, and what follows decides for
    # pairs.
    size = slots * (slots + 2)
    counts = tf.reshape(segments.count_by_image(peaks.pair, size, portable), [-1, slots, slots + 2])
    owner = _owner_of_pairs(_accepted(counts, rank, paintable, free_fraction), rank)
    best = tf.tile(tf.range(size)[tf.newaxis] // (slots + 2), [tf.shape(rank)[0], 1])
    return Painting(peaks.pair, tf.reshape(owner, [-1, size]), best, _owned_areas(counts, owner))


def _accepted(counts: tf.Tensor, rank: tf.Tensor, paintable: tf.Tensor, free_fraction: float) -> tf.Tensor:
    """Decides which masks are painted.

    Whether a mask is painted depends only on which masks before it are. So the rule is applied to all masks at once,
    again and again: each round settles at least the first mask that is not settled yet, and once nothing changes all
    are. In practice a few rounds are enough, where painting in turn takes one for each slot.

    Args:
        counts: float32 [B, N, N + 2], pixels by first and second slot; see `PeakMaps.pair`.
        rank: int32 [B, N], the order of painting, from 0.
        paintable: bool [B, N], slots whose masks may be painted at all.
        free_fraction: a mask is painted if more than this fraction of it is free at its turn.

    Returns:
        bool [B, N].
    """
    # The last two columns are pixels with one mask (N) and with none (N + 1).
    in_both = counts[:, :, :-2]
    areas = tf.reduce_sum(counts[:, :, :-1], 2) + tf.reduce_sum(in_both, 1)
    in_both += tf.linalg.matrix_transpose(in_both)
    overlaps = tf.where(rank[:, tf.newaxis, :] < rank[:, :, tf.newaxis], in_both, 0.0)

    def more(accepted: tf.Tensor, changed: tf.Tensor) -> tf.Tensor:
        del accepted
        return changed

    def again(accepted: tf.Tensor, changed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        del changed
        taken = tf.linalg.matvec(overlaps, tf.cast(accepted, tf.float32))
        # Strictly more, so that an empty mask is never painted, and a fraction of 0 asks for one free pixel.
        now = paintable & (areas - taken > areas * free_fraction)
        return now, tf.reduce_any(now != accepted)

    # The batch size may be unknown, and loop variables keep the shapes they have at first unless told otherwise.
    shapes = tf.TensorShape([None, rank.shape[-1]]), tf.TensorShape([])
    return tf.while_loop(more, again, (paintable, tf.constant(True)), shape_invariants=shapes)[0]


def _owner_of_pairs(accepted: tf.Tensor, rank: tf.Tensor) -> tf.Tensor:
    """The slot that owns the pixels of each pair of slots, int32 [B, N, N + 2]; N where none does.

    Args:
        accepted: bool [B, N], masks that are painted.
        rank: int32 [B, N], the order of painting.
    """
    slots = accepted.shape[-1]
    # The earlier of the two painted masks owns the pixels. Those that are not painted, and "no slot", have the turn N.
    turn = tf.where(accepted, rank, slots)
    first, second = tf.range(slots)[:, tf.newaxis], tf.range(slots + 2)[tf.newaxis, :]
    # In the last column (N + 1) not even the first slot's mask has the pixel.
    first_turn = tf.where(second <= slots, turn[:, :, tf.newaxis], slots)
    second_turn = tf.pad(turn, [[0, 0], [0, 2]], constant_values=slots)[:, tf.newaxis, :]
    earlier = tf.where(first_turn < second_turn, first, second)
    return tf.where(tf.minimum(first_turn, second_turn) < slots, earlier, slots)


def _owned_areas(counts: tf.Tensor, owner: tf.Tensor) -> tf.Tensor:
    """The number of pixels that each slot owns, float32 [B, N], from pixels and owners of pairs, [B, N, N + 2] each."""
    slots = tf.range(owner.shape[1])
    as_first = tf.reduce_sum(tf.where(owner == slots[:, tf.newaxis], counts, 0.0), 2)
    return as_first + tf.reduce_sum(tf.where(owner[:, :, :-2] == slots, counts[:, :, :-2], 0.0), 1)


def paint_one_by_one(
    mask_logits: tf.Tensor,
    peaks: PeakMaps,
    rank: tf.Tensor,
    paintable: tf.Tensor,
    free_fraction: float,
    pixel_confidence: float,
    portable: bool = False,
) -> Painting:
    """Paints masks that may overlap in any way, one after another on a canvas: for thresholds below 1/3, and slow.

    Args:
        mask_logits: float32 [B, h, w, N].
        peaks: the peaks of the enlarged logits.
        rank: int32 [B, N], the order of painting, from 0.
        paintable: bool [B, N], slots whose masks may be painted at all.
        free_fraction: a mask is painted if more than this fraction of it is free at its turn.
        pixel_confidence: a slot's mask is where its probability is above this.
        portable: see `PostprocessingSettings`.
    """
    size, slots = peaks.score.shape[1:], rank.shape[-1]
    normalizers = log_sums(mask_logits, tuple(size))
    order = tf.argsort(rank)

    def paint_next(turn: tf.Tensor, canvas: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # One slot at a time is enlarged, so that memory stays that of a few maps.
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
    # An entry for each pair of the most probable slot and the owner, so that one look-up for each pixel gives both.
    best = peaks.pair // (slots + 2)
    number = tf.tile(tf.range(slots * (slots + 1))[tf.newaxis], [tf.shape(rank)[0], 1])
    areas = segments.count_by_image(canvas, slots + 1, portable)[:, :-1]
    return Painting(best * (slots + 1) + canvas, number % (slots + 1), number // (slots + 1), areas)
