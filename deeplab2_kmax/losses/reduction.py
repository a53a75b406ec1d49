"""From a loss per element to a loss per image, and from pixels to a sample of them."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.random_draws import uniform

# Added to the logits of what must not be chosen.
NEVER = -99999.0


def mean_of_non_zero(losses: tf.Tensor, top_k: float = 1.0) -> tf.Tensor:
    """Mean over the elements of the last axis whose loss is not exactly 0; 0 where there are none.

    losses: [..., E] f32. top_k: fraction (0, 1] of elements, those with the highest loss, that takes part.
    Returns [...] f32. Elements of weight 0 (void pixels, say) drop out of the mean this way, as in DeepLab2.
    """
    if top_k < 1.0:
        losses = tf.math.top_k(losses, int(round(top_k * losses.shape[-1])), sorted=False).values
    counted = tf.math.count_nonzero(losses, axis=-1, dtype=tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(losses, axis=-1), counted)


def sample_pixels(pixel_area: tf.Tensor, labelled: tf.Tensor, count: int, temperature: float) -> tf.Tensor:
    """Draws `count` different pixels of each image, with odds (1 / area of the pixel's mask) ** temperature.

    pixel_area: [B, P] f32, area in pixels of the mask each pixel belongs to, 0 where none. labelled: [B, P] f32, 0 for
    void pixels, which are drawn only where the others do not suffice. Returns indices [B, count] i32.
    The draw is the Gumbel-top-k trick (Kool et al., 2019): the largest perturbed log-odds, so shapes stay static.
    """
    log_odds = -temperature * tf.math.log(tf.maximum(pixel_area, 1.0)) + (1.0 - labelled) * NEVER
    drawn = uniform(tf.unstack(tf.shape(log_odds)), minval=1e-20)
    return tf.math.top_k(log_odds - tf.math.log(-tf.math.log(drawn)), count).indices
