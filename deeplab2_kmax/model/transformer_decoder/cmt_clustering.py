"""CMT-style clustering, reconstructed (after Yu et al., "CMT-DeepLab", CVPR 2022; docs/cmt.md says what is known).

Clusters are soft: each pixel is assigned to all centers by a softmax over centers. With queries q, keys k and values v
of pixels (p) and centers (c), and S' the logits of the layer before:

    assignment       S = norm(q_p k_c^T) + resize(S'),  Z = softmax_N(S)                [HW, N]
    center update    U_clu = W(norm(Z^T v_p)), beside the attention of MaX-DeepLab
    pixel update     U_pix = W(act(norm(conv[Z v_c; Z r; g; g - Z r_xy])))              r: reference boxes, g: positions

Both updates start from the centers at the layer's input and use the same Z. S, Z and the sums over pixels are float32
in every precision.
"""

from __future__ import annotations

from collections.abc import Sequence

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

# Avoids division by zero in the mean over a cluster that no pixel is assigned to.
_MASS_EPSILON = 1e-6


class CmtClustering(tf.keras.layers.Layer):
    """Soft clustering beside attention. `TransformerDecoderSettings` says which parts can be left out.

    Args:
        settings: sizes and parts.
        pixel_channels: channels of the pixels that are updated.
        normalization: settings of the batch norms.
    """

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
        # One scale for all clusters. With a small scale the softmax is almost uniform in a new model: no cluster claims
        # a pixel yet.
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

    def call(self, inputs: RuleInput, training: bool = False) -> RuleOutput:
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

    def _logits(self, query: tf.Tensor, key: tf.Tensor, inputs: RuleInput, training: bool) -> tf.Tensor:
        """S [B, h, w, N]: affinity of pixels [B, HW, K] and centers [B, N, K], plus the logits of the layer before."""
        if training:
            # The new axis makes all clusters one channel, which has one scale and one shift.
            affinity = as_float32(tf.matmul(query, key, transpose_b=True)[..., tf.newaxis])
            logits = tf.squeeze(self.affinity_norm(affinity, training=True), -1)
        else:
            # The scale is multiplied into the keys, a much smaller tensor. The shift would not change the softmax, but
            # S also goes to the next layer.
            scale, shift = self.affinity_norm.affine()
            logits = as_float32(tf.matmul(query, key * tf.cast(scale, key.dtype), transpose_b=True)) + shift
        logits = unflatten_pixels(logits, inputs.pixels)
        if self.settings.residual_assignment and inputs.previous_logits is not None:
            logits += resize_like(inputs.previous_logits, logits)
        return logits

    def _with_location(self, logits: tf.Tensor, boxes: tf.Tensor | None) -> tf.Tensor:
        """S + b log R with `reference_mask_bias`, else S.

        The next layer gets S without the bias, because it adds that of its own reference masks.
        """
        if not self.settings.reference_mask_bias:
            return logits
        return logits + self.reference_bias * log_reference_masks(boxes, logits)

    def _clustered(self, assignment: tf.Tensor, values: tf.Tensor, training: bool) -> tf.Tensor:
        """The clustering branch [B, N, center_channels] from Z [B, HW, N] and v_p [B, HW, V]."""
        clusters = tf.matmul(assignment, as_float32(values), transpose_a=True)
        if self.settings.cluster_reduction == "mean":
            mass = tf.reduce_sum(assignment, axis=1)[..., tf.newaxis]
            clusters /= mass + _MASS_EPSILON
        return self.soft_cluster_projection(self.soft_cluster_norm(clusters, training=training), training=training)

    def _attended(self, of_pixels: Sequence[tf.Tensor], of_centers: Sequence[tf.Tensor], training: bool) -> tf.Tensor:
        """The attention branch [B, N, center_channels] from queries, keys and values of pixels and centers."""
        query, key, value = of_centers
        if self.settings.spatial_attention:
            return attend_to_both(self.center_attention, query, of_pixels[1:], (key, value), training)[0]
        return self.center_attention(query, key, value, training=training)[0]

    def _pixel_update(
        self,
        assignment: tf.Tensor,
        of_pixels: Sequence[tf.Tensor],
        of_centers: Sequence[tf.Tensor],
        boxes: tf.Tensor | None,
        training: bool,
    ) -> tf.Tensor | None:
        """The pixel update [B, h, w, pixel_channels] by Z [B, h, w, N] or by attention; None without one."""
        if self.settings.pixel_update == "none":
            return None
        if self.settings.pixel_update == "attention":
            _, key, value = of_centers
            update, _ = self.pixel_attention(of_pixels[0], key, value, training=training)
            return unflatten_pixels(update, assignment)
        return self.pixel_update(assignment, of_centers[2], boxes, training=training)


class PixelUpdate(tf.keras.layers.Layer):
    """Pixels gather the values of the centers they are assigned to: Z [B, h, w, N], v_c [B, N, V] -> [B, h, w, C].

    With reference boxes [B, N, 4], a coordinate convolution also tells each pixel where it is and where its clusters
    are. Without them, the third input is None. The last normalization starts at zero, so a new update adds nothing.

    Args:
        settings: value channels, activation, and whether there are reference boxes.
        pixel_channels: C.
        normalization: settings of the batch norms.
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

    def call(
        self, assignment: tf.Tensor, values: tf.Tensor, boxes: tf.Tensor | None, training: bool = False
    ) -> tf.Tensor:
        if boxes is None:
            hidden = tf.matmul(flatten_pixels(tf.cast(assignment, values.dtype)), values)
        else:
            hidden = self.coordinate_conv(assignment, values, boxes)
        hidden = self.activate(self.value_norm(hidden, training=training), training)
        return unflatten_pixels(self.projection(hidden, training=training), assignment)
