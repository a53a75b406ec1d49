"""Instance discrimination: the features of a mask's pixels should be alike, and unlike those of other masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import tensorflow as tf

from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.losses.reduction import EXCLUDED_LOGIT, mean_of_non_zero, sample_pixels
from deeplab2_kmax.losses.settings import LossSettings
from deeplab2_kmax.losses.targets import GroundTruthMasks
from deeplab2_kmax.wording import counted

# Rows of the matrix of similarities that are held in memory at a time.
_BLOCK_ROWS = 512


def instance_discrimination_loss(
    features: Sequence[tf.Tensor], masks: GroundTruthMasks, settings: LossSettings
) -> tf.Tensor:
    """The loss of each output, in one of two forms.

    With `settings.instance_sample_k` above 0, sampled pixels are compared with each other (CMT-DeepLab and
    kMaX-DeepLab). Otherwise each pixel is compared with the mean features of the masks (MaX-DeepLab).

    Args:
        features: of each of O outputs, float32 [B, P, D], normalized to length 1.
        masks: ground truth.
        settings: `instance_discrimination` is set.

    Returns:
        float32 [O, B].
    """
    term = settings.instance_discrimination
    assert term is not None  # `total` computes no terms without settings.
    if settings.instance_sample_k > 0:
        losses = [_pixel_contrast(rows, masks, settings) for rows in features]
    else:
        losses = [_mean_contrast(rows, masks, settings.instance_temperature) for rows in features]
        # Pixels of things only, as in DeepLab2.
        losses = tf.stack(losses) * tf.where(masks.pixel_mask >= 0, masks.pixel_is_thing, 0.0)
    return term.weight * mean_of_non_zero(tf.stack(losses), term.top_k)


def _mean_contrast(features: tf.Tensor, masks: GroundTruthMasks, temperature: float) -> tf.Tensor:
    """The loss of each pixel against the mean features of all masks (MaX-DeepLab, equation 11), [B, P].

    Values of pixels without a mask mean nothing.
    """
    means = tf.matmul(masks.pixel_mask_one_hot, features, transpose_a=True)
    means = tf.math.l2_normalize(means * (1.0 / tf.maximum(masks.area, 1.0))[:, :, None], axis=-1)
    # The temperature divides the few means rather than the similarities, of which there is one for each pixel and mask.
    similarity = tf.matmul(features, means * (1.0 / temperature), transpose_b=True)
    similarity += tf.where(masks.exists, 0.0, EXCLUDED_LOGIT)[:, None, :]
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(masks.pixel_mask, 0), similarity)


def _pixel_contrast(features: tf.Tensor, masks: GroundTruthMasks, settings: LossSettings) -> tf.Tensor:
    """The loss of each sampled pixel against all sampled pixels (CMT-DeepLab, section 3.3), [B, K].

    The target of a pixel is a distribution over the K samples, uniform over the n samples of its mask. With features f
    and temperature t its cross-entropy is log sum_j exp(f.f_j / t) - f.(sum of the mask's f_j) / (n t), so that no
    matrix of targets is needed.
    """
    pixel_mask, one_hot = masks.pixel_mask, masks.pixel_mask_one_hot
    count = settings.instance_sample_k
    if count > features.shape[1]:
        raise ConfigError(
            "model_options.max_deeplab.instance_discrimination_sample_k: expected at most the"
            f" {counted(features.shape[1], 'pixel')} of the output, got {count}; the crop is too small for so many"
        )
    if count < features.shape[1]:
        chosen = sample_pixels(masks.pixel_area, masks.pixel_is_labelled, count, settings.instance_sample_temperature)
        pixel_mask, one_hot, features = (tf.gather(x, chosen, batch_dims=1) for x in (pixel_mask, one_hot, features))
    sizes = tf.reduce_sum(one_hot, axis=1)
    means = tf.matmul(one_hot, features, transpose_a=True) / tf.maximum(sizes, 1.0)[:, :, None]
    attraction = tf.reduce_sum(tf.matmul(one_hot, means) * features, axis=2) / settings.instance_temperature
    losses = log_partition(features, settings.instance_temperature) - attraction
    # A sampled pixel without a mask has the loss 0 and yet a gradient, which drives it away from all others, as in
    # DeepLab2. Hence its own value is subtracted, and not the loss multiplied by 0.
    return losses - tf.where(pixel_mask >= 0, 0.0, tf.stop_gradient(losses))


def log_partition(features: tf.Tensor, temperature: float) -> tf.Tensor:
    """log sum_j exp(f_i.f_j / temperature) of each row f_i of the features.

    The K x K matrix of exponentials is symmetric and is never kept as a whole: blocks of it, from the diagonal to the
    right, are computed for the sums and once more for the gradient.

    Args:
        features: float32 [B, K, D]. Rows have length 1, so that products are at most 1, and no maximum has to be
            subtracted at temperatures above 0.02: exp(1 / 0.02) is 5e21, so that sums of millions of exponentials, and
            their gradients, stay far below 3e38, the largest float32.
        temperature: divides the products.

    Returns:
        float32 [B, K].
    """

    @tf.custom_gradient
    def function(rows: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        sums = _matrix_sums(rows, temperature)
        return tf.math.log(sums), lambda upstream: _matrix_gradient(rows, upstream / sums, temperature)

    return function(features)


def _blocks(rows: tf.Tensor, temperature: float) -> Iterator[tuple[int, tf.Tensor]]:
    """Blocks of the matrix with the row (and column) they begin at: some rows, from the diagonal to the last column."""
    for start in range(0, rows.shape[1], _BLOCK_ROWS):
        own = rows[:, start : start + _BLOCK_ROWS] / temperature
        yield start, tf.exp(tf.matmul(own, rows[:, start:], transpose_b=True))


# A tf.function of its own, as is the gradient, so that the blocks are traced once and not for each of the outputs.
@tf.function(autograph=False)
def _matrix_sums(rows: tf.Tensor, temperature: float) -> tf.Tensor:
    """The sum of each row of the matrix, [B, K]."""
    parts = (_block_sums(block) for _, block in _blocks(rows, temperature))
    return _add_blocks(parts)


@tf.function(autograph=False)
def _matrix_gradient(rows: tf.Tensor, share: tf.Tensor, temperature: float) -> tf.Tensor:
    """The gradient of sum_i share_i * sum_j matrix_ij by the rows, [B, K, D].

    By f_i.f_j / temperature it is matrix_ij * (share_i + share_j), as each product stands in the matrix twice.
    """
    blocks = _blocks(rows, temperature)
    return _add_blocks(_block_product(block, share[:, i:], rows[:, i:]) for i, block in blocks) / temperature


def _block_sums(block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Row sums of a block [B, R, C], and column sums of its part to the right of the diagonal block [B, R, R].

    The column sums of the whole block are taken and the first R dropped: slicing the block first would copy it, which
    costs more than a few sums too many.
    """
    return tf.reduce_sum(block, axis=2), tf.reduce_sum(block, axis=1)[:, block.shape[1] :]


def _block_product(block: tf.Tensor, share: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The part of the gradient that a block has in its own rows, and in the rows of its columns after the diagonal.

    The second one stands for the mirror image of the block, below the diagonal, which is never computed.
    """
    size = block.shape[1]
    weighted = block * (share[:, :size, None] + share[:, None, :])
    return tf.matmul(weighted, rows), tf.matmul(weighted, rows[:, :size], transpose_a=True)[:, size:]


def _add_blocks(parts: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> tf.Tensor:
    """The sum over blocks, each given as a part for its own rows and a part for all rows after them (axis 1)."""
    finished, rest = [], None
    for own, after in parts:
        size = own.shape[1]
        if rest is not None:
            own, after = own + rest[:, :size], after + rest[:, size:]
        finished.append(own)
        rest = after
    return tf.concat(finished, axis=1)
