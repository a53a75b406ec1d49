"""k-means clustering as cross-attention (Yu et al., "k-means Mask Transformer", ECCV 2022, equations 4 and 6).

The mask logits, which the layer's own head predicts, are the affinity between cluster centers C and pixels P:

    assignment   A = onehot(argmax_n logits(P, C))            [HW, N], no gradient
    update       C <- C + W(norm(A^T V(P)))                   sum over the pixels of each cluster

Besides, the centers attend to each other. Pixels are not updated. The sum is float32 in every precision.

The argmax has no gradient, so the assignment cannot learn through the update. It learns because each layer's mask
logits are supervised (deep supervision), which k-means therefore needs.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.heads import Prediction
from deeplab2_kmax.model.layers.convolution import LinearNorm
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization
from deeplab2_kmax.model.layers.precision import as_float32
from deeplab2_kmax.model.transformer_decoder.attention import AttentionBranch, attention_projection
from deeplab2_kmax.model.transformer_decoder.settings import TransformerDecoderSettings
from deeplab2_kmax.model.transformer_decoder.update_rule import RuleInput, RuleOutput, flatten_pixels


class KMeansClustering(tf.keras.layers.Layer):
    """One step of k-means: assigns every pixel to one center, then sums the values of each center's pixels.

    It needs `RuleInput.prediction`. A center without pixels gets a sum of zero, normalized and projected: an update
    that does not depend on the image.

    Args:
        settings: sizes.
        pixel_channels: not used; all update rules take it.
        normalization: settings of the batch norms.
    """

    def __init__(
        self,
        settings: TransformerDecoderSettings,
        pixel_channels: int,
        normalization: Normalization,
        name: str = "kmeans_clustering",
    ):
        super().__init__(name=name, autocast=False)
        del pixel_channels  # Pixels are not updated.
        self.depths = [settings.key_channels, settings.key_channels, settings.value_channels]
        self.pixel_value = attention_projection(settings, settings.value_channels, normalization, "pixel_value")
        self.cluster_norm = BatchNorm(normalization, name="cluster_norm")
        self.cluster_projection = LinearNorm(
            settings.center_channels, normalization, gamma_initializer="zeros", name="cluster_projection"
        )
        self.center_qkv = attention_projection(settings, sum(self.depths), normalization, "center_qkv")
        self.center_attention = AttentionBranch(
            settings, settings.center_channels, normalization, name="center_attention"
        )

    def call(self, inputs: RuleInput, training: bool = False) -> RuleOutput:
        if inputs.prediction is None:
            raise ValueError(f"{self.name}: expected mask logits of the layer to assign pixels by, got no prediction")
        assignment = hard_assignment(inputs.prediction)
        values = as_float32(self.pixel_value(flatten_pixels(inputs.pixels), training=training))
        # k-means would divide by the number of pixels. Here, as in DeepLab2, the sum is brought to scale by the batch
        # norm: a large cluster keeps a larger update than a small one.
        clusters = tf.matmul(flatten_pixels(assignment), values, transpose_a=True)
        clustered = self.cluster_projection(self.cluster_norm(clusters, training=training), training=training)
        query, key, value = tf.split(self.center_qkv(inputs.centers, training=training), self.depths, axis=-1)
        attended, _ = self.center_attention(query, key, value, training=training)
        return RuleOutput((clustered, attended), None, assignment, inputs.prediction.mask_logits)


def hard_assignment(prediction: Prediction) -> tf.Tensor:
    """Assigns each pixel to the center with the highest mask logit.

    Args:
        prediction: masks of the centers.

    Returns:
        [B, h, w, N], one-hot at each pixel, without a gradient.
    """
    logits = prediction.mask_logits
    nearest = tf.argmax(logits, axis=-1, output_type=tf.int32)
    # TensorFlow has no gradient of argmax anyway. Stopping it here says so, and keeps the tape from looking for one.
    return tf.stop_gradient(tf.one_hot(nearest, logits.shape[-1], dtype=logits.dtype))
