"""k-means clustering as cross-attention (Yu et al., "k-means Mask Transformer", ECCV 2022, equations 4 and 6).

Cluster centers C and pixels P, with mask logits as the affinity between them:

    assignment   A = onehot(argmax_n logits(P, C))            [HW, N], no gradient
    update       C <- C + W(norm(A^T V(P)))                   sum over the pixels of each cluster
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.heads import HeadSettings, Prediction, PredictionHead
from deeplab2_kmax.model.layers.convolution import LinearNorm
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization


class KMeansClustering(tf.keras.layers.Layer):
    """One step of k-means: assigns every pixel to one center, then sums the values of each center's pixels.

    Inputs are pixels [B, h, w, D] and centers [B, N, D], both projected to the layer's bottleneck. Returns what is to
    be added to the centers, [B, N, center_channels], and the `Prediction` behind the assignment, which is supervised.
    What a center without pixels receives is the same whatever the image: a sum of zero, normalized.
    """

    def __init__(
        self,
        bottleneck_channels: int,
        value_channels: int,
        center_channels: int,
        head_settings: HeadSettings,
        normalization: Normalization,
        name: str = "clustering",
    ):
        super().__init__(name=name)
        self.predictor = PredictionHead(head_settings, normalization, name="predictor")
        self.value = LinearNorm(
            value_channels,
            normalization,
            kernel_initializer=tf.keras.initializers.TruncatedNormal(stddev=bottleneck_channels**-0.5),
            name="value",
        )
        self.value_norm = BatchNorm(normalization, name="value_norm")
        self.projection = LinearNorm(center_channels, normalization, gamma_initializer="zeros", name="projection")

    def call(self, pixels, centers, training=False):
        prediction = self.predictor(pixels, centers, centers, training=training)
        values = self.value(_flatten_pixels(pixels), training=training)
        update = tf.matmul(_flatten_pixels(hard_assignment(prediction)), values, transpose_a=True)
        update = self.projection(self.value_norm(update, training=training), training=training)
        return update, prediction


def hard_assignment(prediction: Prediction) -> tf.Tensor:
    """[B, h, w, N] with a single one at each pixel, at the center with the highest mask logit; carries no gradient."""
    logits = prediction.mask_logits
    nearest = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return tf.stop_gradient(tf.one_hot(nearest, logits.shape[-1], dtype=logits.dtype))


def _flatten_pixels(x: tf.Tensor) -> tf.Tensor:
    """[B, h, w, C] -> [B, h * w, C]."""
    return tf.reshape(x, [tf.shape(x)[0], -1, x.shape[-1]])
