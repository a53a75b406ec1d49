"""Instance discrimination: pixels of one mask should have like features, pixels of different masks unlike ones."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.losses.reduction import NEVER, mean_of_non_zero, sample_pixels
from deeplab2_kmax.losses.settings import LossSettings
from deeplab2_kmax.losses.targets import GroundTruthMasks


def instance_discrimination_loss(features: tf.Tensor, masks: GroundTruthMasks, settings: LossSettings) -> tf.Tensor:
    """The loss of one output; which of the two forms depends on `instance_sample_k`.

    features: [B, P, D] f32, normalised to length 1. Returns [B] f32.
    """
    if settings.instance_sample_k > 0:
        losses = _pixel_contrast(features, masks, settings)
    else:
        losses = _mean_contrast(features, masks, settings.instance_temperature)
    term = settings.instance_discrimination
    return term.weight * mean_of_non_zero(losses, term.top_k)


def _mean_contrast(features: tf.Tensor, masks: GroundTruthMasks, temperature: float) -> tf.Tensor:
    """Each thing pixel against the mean features of all masks (MaX-DeepLab, equation 11). Returns [B, P]."""
    means = tf.matmul(masks.pixel_mask_one_hot, features, transpose_a=True)
    means = tf.math.l2_normalize(means / tf.maximum(masks.area, 1.0)[:, :, None], axis=-1)
    similarity = tf.matmul(features, means / temperature, transpose_b=True)
    similarity = tf.where(masks.exists[:, None, :], similarity, NEVER)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(masks.pixel_mask, 0), similarity)
    return losses * tf.where(masks.pixel_mask >= 0, masks.pixel_is_thing, 0.0)


def _pixel_contrast(features: tf.Tensor, masks: GroundTruthMasks, settings: LossSettings) -> tf.Tensor:
    """Sampled pixels against each other (CMT-DeepLab, section 3.3), the pixels of the same mask sharing the target.

    The target row of a pixel is uniform over the n samples of its mask, so its cross-entropy is
    log sum_j exp(f.f_j / t) - f.(sum of the mask's f_j) / (n t): no target matrix is needed. Returns [B, K].
    """
    pixel_mask, one_hot = masks.pixel_mask, masks.pixel_mask_one_hot
    count = settings.instance_sample_k
    if count < features.shape[1]:
        chosen = sample_pixels(masks.pixel_area, masks.pixel_is_labelled, count, settings.instance_sample_temperature)
        pixel_mask, one_hot, features = (tf.gather(x, chosen, batch_dims=1) for x in (pixel_mask, one_hot, features))
    sizes = tf.reduce_sum(one_hot, axis=1)
    means = tf.matmul(one_hot, features, transpose_a=True) / tf.maximum(sizes, 1.0)[:, :, None]
    attraction = tf.reduce_sum(tf.matmul(one_hot, means) * features, axis=2) / settings.instance_temperature
    losses = log_partition(features, settings.instance_temperature) - attraction
    return tf.where(pixel_mask >= 0, losses, 0.0)


def log_partition(features: tf.Tensor, temperature: float) -> tf.Tensor:
    """log sum_j exp(f_i.f_j / temperature) of each row i of features [B, K, D]. Returns [B, K].

    The K x K matrix is symmetric, which the gradient makes use of: it needs the matrix once and one product with it.
    """

    @tf.custom_gradient
    def function(rows):
        # No product of two rows is larger than the largest square; one shift for all keeps the matrix symmetric.
        largest = tf.reduce_max(tf.reduce_sum(tf.square(rows), axis=2), axis=1)[:, None, None] / temperature
        matrix = tf.exp(tf.matmul(rows / temperature, rows, transpose_b=True) - largest)
        sums = tf.reduce_sum(matrix, axis=2, keepdims=True)

        def gradient(upstream):
            share = upstream[:, :, None] / sums
            both = tf.matmul(matrix, tf.concat([rows, rows * share], axis=2))
            plain, weighted = tf.split(both, 2, axis=2)
            return (share * plain + weighted) / temperature

        return tf.math.log(sums[:, :, 0]) + largest[:, :, 0], gradient

    return function(features)
