"""CMT-style clustering, reconstructed (after Yu et al., "CMT-DeepLab", CVPR 2022; docs/cmt.md says what is known).

Clusters are soft, and the softmax runs over centers. With queries, keys and values (q_p, v_p) of pixels and (k_c, v_c)
of centers, and S' the logits of the layer before:

    assignment       S = norm(q_p k_c^T) + resize(S'),  Z = softmax_N(S)                [HW, N]
    centers gather   U_clu = W(norm(Z^T v_p)), beside the attention of MaX-DeepLab
    pixels gather    U_pix = W(act(norm(conv[Z v_c; Z r; g; g - Z r_xy])))              r: reference boxes, g: positions

Everything starts from the centers as they came in: first assign, then update centers and pixels by the same Z. S, Z and
the sums over pixels are float32 in every precision.
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.convolution import LinearNorm
from deeplab2_kmax.model.layers.normalization import BatchNorm, Normalization
from deeplab2_kmax.model.layers.precision import add_float32_weight, as_float32
from deeplab2_kmax.model.layers.resize import resize_like
from deeplab2_kmax.model.transformer_decoder.attention import AttentionBranch, attend_to_both, attention_projection
from deeplab2_kmax.model.transformer_decoder.location import (
    CoordinateConvolution,
    ReferenceBoxes,
    log_reference_masks,
)
from deeplab2_kmax.model.transformer_decoder.settings import TransformerDecoderSettings
from deeplab2_kmax.model.transformer_decoder.update_rule import (
    RuleInput,
    RuleOutput,
    flatten_pixels,
    unflatten_pixels,
)

# Keeps the mean over a cluster without mass defined.
_MASS_EPSILON = 1e-6


class CmtClustering(tf.keras.layers.Layer):
    """Soft clustering beside attention; see `TransformerDecoderSettings` for the parts that can be left out."""

    def __init__(
        self,
        settings: TransformerDecoderSettings,
        pixel_channels: int,
        normalization: Normalization,
        name: str = "cmt_clustering",
    ):
        super().__init__(name=name, autocast=False)
        self.settings = settings
        self.depths = [settings.key_channels, settings.key_channels, settings.value_channels]
        self.center_qkv = attention_projection(settings, sum(self.depths), normalization, "center_qkv")
        self.pixel_qkv = attention_projection(settings, sum(self.depths), normalization, "pixel_qkv")
        # One scale for all clusters, small: at the start they claim every pixel alike.
        self.affinity_norm = BatchNorm(normalization, tf.keras.initializers.Constant(0.1), name="affinity_norm")
        self.affinity_norm.build([None, 1])
        self.soft_cluster_norm = BatchNorm(normalization, name="soft_cluster_norm")
        self.soft_cluster_projection = LinearNorm(
            settings.center_channels, normalization, gamma_initializer="zeros", name="soft_cluster_projection"
        )
        self.center_attention = AttentionBranch(
            settings, settings.center_channels, normalization, name="center_attention"
        )
        if settings.location_sensitive:
            self.reference_boxes = ReferenceBoxes(settings, normalization, name="reference_boxes")
            if settings.reference_mask_bias:
                self.reference_bias = add_float32_weight(self, "reference_bias", [], "ones")
        if settings.pixel_update == "attention":
            self.pixel_attention = AttentionBranch(settings, pixel_channels, normalization, name="pixel_attention")
        elif settings.pixel_update == "assignment":
            self.pixel_update = PixelUpdate(settings, pixel_channels, normalization, name="pixel_update")

    def call(self, inputs: RuleInput, training=False) -> RuleOutput:
        of_centers = tf.split(self.center_qkv(inputs.centers, training=training), self.depths, axis=-1)
        qkv = self.pixel_qkv(flatten_pixels(inputs.pixels), training=training)
        of_pixels = tf.split(qkv, self.depths, axis=-1)
        boxes = None
        if self.settings.location_sensitive:
            boxes = self.reference_boxes(inputs.raw_centers, training=training)
        logits = self._logits(of_pixels[0], of_centers[1], inputs, training)
        assignment = tf.nn.softmax(self._with_location(logits, boxes))
        clustered = self._clustered(flatten_pixels(assignment), of_pixels[2], training)
        attended = self._attended(of_pixels, of_centers, training)
        update = self._pixel_update(assignment, of_pixels, of_centers, boxes, training)
        return RuleOutput((clustered, attended), update, assignment, logits, boxes)

    def _logits(self, query, key, inputs: RuleInput, training):
        """S [B, h, w, N]: affinity of pixels [B, HW, K] and centers [B, N, K], plus the logits of the layer before."""
        if training:
            affinity = as_float32(tf.matmul(query, key, transpose_b=True)[..., tf.newaxis])
            logits = tf.squeeze(self.affinity_norm(affinity, training=True), -1)
        else:
            scale, shift = self.affinity_norm.affine()
            logits = as_float32(tf.matmul(query, key * tf.cast(scale, key.dtype), transpose_b=True)) + shift
        logits = unflatten_pixels(logits, inputs.pixels)
        if self.settings.residual_assignment and inputs.previous_logits is not None:
            logits += resize_like(inputs.previous_logits, logits)
        return logits

    def _with_location(self, logits, boxes):
        """S, plus b log R where asked for; the next layer gets S without it, as it has reference masks of its own."""
        if not self.settings.reference_mask_bias:
            return logits
        return logits + self.reference_bias * log_reference_masks(boxes, logits)

    def _clustered(self, assignment, values, training):
        """The clustering branch [B, N, center_channels] from Z [B, HW, N] and v_p [B, HW, V]."""
        clusters = tf.matmul(assignment, as_float32(values), transpose_a=True)
        if self.settings.cluster_reduction == "mean":
            mass = tf.reduce_sum(assignment, axis=1)[..., tf.newaxis]
            clusters /= mass + _MASS_EPSILON
        return self.soft_cluster_projection(self.soft_cluster_norm(clusters, training=training), training=training)

    def _attended(self, of_pixels, of_centers, training):
        query, key, value = of_centers
        if self.settings.spatial_attention:
            return attend_to_both(self.center_attention, query, of_pixels[1:], (key, value), training)[0]
        return self.center_attention(query, key, value, training=training)[0]

    def _pixel_update(self, assignment, of_pixels, of_centers, boxes, training):
        if self.settings.pixel_update == "none":
            return None
        if self.settings.pixel_update == "attention":
            update, _ = self.pixel_attention(of_pixels[0], *of_centers[1:], training=training)
            return unflatten_pixels(update, assignment)
        return self.pixel_update(assignment, of_centers[2], boxes, training=training)


class PixelUpdate(tf.keras.layers.Layer):
    """Pixels gather the values of the centers they are assigned to: Z [B, h, w, N], v_c [B, N, V] -> [B, h, w, C].

    With reference boxes [B, N, 4] a coordinate convolution tells each pixel where it is and where its cluster is; boxes
    are None without. The last normalization starts at zero, so a new update adds nothing.
    """

    def __init__(
        self,
        settings: TransformerDecoderSettings,
        pixel_channels: int,
        normalization: Normalization,
        name: str | None = None,
    ):
        super().__init__(name=name, autocast=False)
        self.activate = activation(settings.activation)
        if settings.location_sensitive:
            self.coordinate_conv = CoordinateConvolution(settings.value_channels, name="coordinate_conv")
        self.value_norm = BatchNorm(normalization, name="value_norm")
        self.projection = LinearNorm(pixel_channels, normalization, gamma_initializer="zeros", name="projection")

    def call(self, assignment, values, boxes, training=False):
        if boxes is None:
            hidden = tf.matmul(flatten_pixels(tf.cast(assignment, values.dtype)), values)
        else:
            hidden = self.coordinate_conv(assignment, values, boxes)
        hidden = self.activate(self.value_norm(hidden, training=training), training)
        return unflatten_pixels(self.projection(hidden, training=training), assignment)
