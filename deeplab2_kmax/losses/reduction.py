"""Means of losses over pixels or slots, and random samples of pixels."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.random_draws import uniform

# Added to the logits of what must not be chosen. DeepLab2's number; finite, so that no NaN arises from inf - inf.
EXCLUDED_LOGIT = -99999.0


def mean_of_non_zero(losses: tf.Tensor, top_k: float = 1.0) -> tf.Tensor:
    """Mean over those elements of the last axis whose loss is not exactly 0.

    This is how elements of weight 0 (void pixels, for example) stay out of a mean in DeepLab2.

    Args:
        losses: float32 [..., E].
        top_k: fraction, above 0 and up to 1, of the elements that count: those with the highest losses.

    Returns:
        float32 [...]; 0 where all losses are 0.
    """
    if top_k < 1.0:
        # The fraction is one of all elements, those with a loss of 0 included, rounded to the nearest number.
        losses = tf.math.top_k(losses, int(round(top_k * losses.shape[-1])), sorted=False).values
    counted = tf.math.count_nonzero(losses, axis=-1, dtype=tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(losses, axis=-1), counted)


def sample_pixels(pixel_area: tf.Tensor, labelled: tf.Tensor, count: int, temperature: float) -> tf.Tensor:
    """Draws `count` different pixels of each image, with odds (1 / area of the pixel's mask) ** temperature.

    The draw is the Gumbel-top-k trick (Kool et al., 2019, arXiv:1903.06059): the pixels with the largest sums of
    log-odds and Gumbel noise are a sample without replacement, and shapes stay static.

    Args:
        pixel_area: float32 [B, P], area in pixels of the mask that each pixel belongs to, 0 where it belongs to none.
        labelled: float32 [B, P], 0 for void pixels, which are drawn only if there are too few others; 1 elsewhere.
        count: at most P.
        temperature: above 1 small masks are favored, below 1 large ones.

    Returns:
        int32 [B, count], indices of pixels.
    """
    log_odds = -temperature * tf.math.log(tf.maximum(pixel_area, 1.0)) + (1.0 - labelled) * EXCLUDED_LOGIT
    # -log(-log(u)) of uniform u is Gumbel noise; the smallest u keeps it finite.
    drawn = uniform(tf.unstack(tf.shape(log_odds)), minval=1e-20)
    return tf.math.top_k(log_odds - tf.math.log(-tf.math.log(drawn)), count).indices
