"""Instance discrimination: pixels of one mask should have like features, pixels of different masks unlike ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.losses.reduction import NEVER, mean_of_non_zero, sample_pixels
from deeplab2_kmax.losses.settings import LossSettings
from deeplab2_kmax.losses.targets import GroundTruthMasks

# Rows of the matrix of similarities that are in memory at a time.
_BLOCK_ROWS = 512


def instance_discrimination_loss(
    features: Sequence[tf.Tensor], masks: GroundTruthMasks, settings: LossSettings
) -> tf.Tensor:
    """The loss of each output; which of the two forms depends on `instance_sample_k`.

    features: of each of O outputs [B, P, D] f32, normalised to length 1. Returns [O, B] f32.
    """
    if settings.instance_sample_k > 0:
        losses = [_pixel_contrast(rows, masks, settings) for rows in features]
    else:
        losses = [_mean_contrast(rows, masks, settings.instance_temperature) for rows in features]
        losses = tf.stack(losses) * tf.where(masks.pixel_mask >= 0, masks.pixel_is_thing, 0.0)
    term = settings.instance_discrimination
    return term.weight * mean_of_non_zero(tf.stack(losses), term.top_k)


def _mean_contrast(features: tf.Tensor, masks: GroundTruthMasks, temperature: float) -> tf.Tensor:
    """Each pixel against the mean features of all masks (MaX-DeepLab, equation 11), for things. Returns [B, P]."""
    means = tf.matmul(masks.pixel_mask_one_hot, features, transpose_a=True)
    means = tf.math.l2_normalize(means * (1.0 / tf.maximum(masks.area, 1.0))[:, :, None], axis=-1)
    similarity = tf.matmul(features, means * (1.0 / temperature), transpose_b=True)
    similarity += tf.where(masks.exists, 0.0, NEVER)[:, None, :]
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(masks.pixel_mask, 0), similarity)


def _pixel_contrast(features: tf.Tensor, masks: GroundTruthMasks, settings: LossSettings) -> tf.Tensor:
    """Sampled pixels against each other (CMT-DeepLab, section 3.3), the pixels of the same mask sharing the target.

    The target row of a pixel is uniform over the n samples of its mask, so its cross-entropy is
    log sum_j exp(f.f_j / t) - f.(sum of the mask's f_j) / (n t): no target matrix is needed. Returns [B, K].
    """
    pixel_mask, one_hot = masks.pixel_mask, masks.pixel_mask_one_hot
    count = settings.instance_sample_k
    if count > features.shape[1]:
        raise ConfigError(
            "model_options.max_deeplab.instance_discrimination_sample_k: expected at most the"
            f" {features.shape[1]} pixels of the output, came {count}; the crop is too small for so many"
        )
    if count < features.shape[1]:
        chosen = sample_pixels(masks.pixel_area, masks.pixel_is_labelled, count, settings.instance_sample_temperature)
        pixel_mask, one_hot, features = (tf.gather(x, chosen, batch_dims=1) for x in (pixel_mask, one_hot, features))
    sizes = tf.reduce_sum(one_hot, axis=1)
    means = tf.matmul(one_hot, features, transpose_a=True) / tf.maximum(sizes, 1.0)[:, :, None]
    attraction = tf.reduce_sum(tf.matmul(one_hot, means) * features, axis=2) / settings.instance_temperature
    losses = log_partition(features, settings.instance_temperature) - attraction
    # As in DeepLab2, a sampled pixel without a mask has no loss and yet a gradient, away from all others.
    return losses - tf.where(pixel_mask >= 0, 0.0, tf.stop_gradient(losses))


def log_partition(features: tf.Tensor, temperature: float) -> tf.Tensor:
    """log sum_j exp(f_i.f_j / temperature) of each row i of features [B, K, D]. Returns [B, K].

    Rows are normalised, so nothing overflows at temperatures above 0.02. The K x K matrix is symmetric and is never
    kept: blocks of it, from the diagonal to the right, are made for the sums and made again for the gradient.
    """

    @tf.custom_gradient
    def function(rows):
        sums = _matrix_sums(rows, temperature)
        return tf.math.log(sums), lambda upstream: _matrix_gradient(rows, upstream / sums, temperature)

    return function(features)


def _blocks(rows: tf.Tensor, temperature: float) -> Iterator[tuple[int, tf.Tensor]]:
    for start in range(0, rows.shape[1], _BLOCK_ROWS):
        own = rows[:, start : start + _BLOCK_ROWS] / temperature
        yield start, tf.exp(tf.matmul(own, rows[:, start:], transpose_b=True))


# A function of its own, so that the blocks are traced once for all outputs.
@tf.function(autograph=False)
def _matrix_sums(rows: tf.Tensor, temperature: float) -> tf.Tensor:
    parts = (_block_sums(block) for _, block in _blocks(rows, temperature))
    return _add_blocks(parts)


@tf.function(autograph=False)
def _matrix_gradient(rows: tf.Tensor, share: tf.Tensor, temperature: float) -> tf.Tensor:
    """Gradient of sum_i share_i * sum_j matrix_ij, where d / d (f_i.f_j / t) = matrix_ij * (share_i + share_j)."""
    blocks = _blocks(rows, temperature)
    return _add_blocks(_block_product(block, share[:, i:], rows[:, i:]) for i, block in blocks) / temperature


def _block_sums(block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Row sums of a block [B, R, C], and column sums of its part right of the diagonal block [B, R, R].

    Sums are sliced, not the block: to sum and drop a little more is cheaper than to copy.
    """
    return tf.reduce_sum(block, axis=2), tf.reduce_sum(block, axis=1)[:, block.shape[1] :]


def _block_product(block: tf.Tensor, share: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The weighted block times the rows it covers, and its part right of the diagonal, turned, times its own rows."""
    size = block.shape[1]
    weighted = block * (share[:, :size, None] + share[:, None, :])
    return tf.matmul(weighted, rows), tf.matmul(weighted, rows[:, :size], transpose_a=True)[:, size:]


def _add_blocks(parts: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> tf.Tensor:
    """Sum over blocks: each has a first part for its own rows and a second for all rows after them (axis 1)."""
    finished, rest = [], None
    for own, after in parts:
        size = own.shape[1]
        if rest is not None:
            own, after = own + rest[:, :size], after + rest[:, size:]
        finished.append(own)
        rest = after
    return tf.concat(finished, axis=1)
