"""One layer of a transformer decoder: projections, an update rule, a feed-forward network.

How centers and pixels are updated from each other is the update rule, a layer of its own (`max_attention.py`,
`cmt_clustering.py`, `kmeans_clustering.py`; interface in `update_rule.py`). This file is what all rules share.

A layer does not know where it stands: `TransformerDecoder` chains layers at strides 32, 16 and 8, while MaX-DeepLab
puts them after the blocks of its encoder. It takes pixels with any number of channels, not activated, and centers:

    layer = DecoderLayer(settings, head_settings, normalization, name="transformer")
    output = layer(pixels, centers, previous_logits, training=training)
    pixels, centers, previous_logits = output.pixels, output.centers, output.assignment_logits
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.model.heads import HeadSettings, Prediction, PredictionHead
from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.convolution import LinearNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.precision import as_float32
from deeplab2_kmax.model.layers.recomputation import RecomputableLayer
from deeplab2_kmax.model.layers.regularization import drop_path
from deeplab2_kmax.model.transformer_decoder.cmt_clustering import CmtClustering
from deeplab2_kmax.model.transformer_decoder.kmeans_clustering import KMeansClustering
from deeplab2_kmax.model.transformer_decoder.max_attention import MaxAttention
from deeplab2_kmax.model.transformer_decoder.settings import TransformerDecoderSettings
from deeplab2_kmax.model.transformer_decoder.update_rule import RuleInput, flatten_pixels, unflatten_pixels

# `update_rule` of the config -> layer, made as `update_rule.py` says.
UPDATE_RULES: dict[str, Callable[[TransformerDecoderSettings, int, Normalization], tf.keras.layers.Layer]] = {
    "max": MaxAttention,
    "cmt": CmtClustering,
    "kmax": KMeansClustering,
}


class LayerOutput(NamedTuple):
    """The output of a layer: B images, h x w pixels, N centers. All but the pixels are float32 in every precision.

    Attributes:
        pixels: [B, h, w, C] with the rule's pixel update, not activated.
        centers: [B, N, center_channels].
        assignment: [B, h, w, N], sums to one over the centers at each pixel.
        assignment_logits: [B, h, w, N], or None; see `RuleOutput`.
        prediction: the layer's own masks and classes, made before the update; None without deep supervision.
        reference_boxes: [B, N, 4] (center x, center y, width, height) in fractions of the image, or None.
    """

    pixels: tf.Tensor
    centers: tf.Tensor
    assignment: tf.Tensor
    assignment_logits: tf.Tensor | None = None
    prediction: Prediction | None = None
    reference_boxes: tf.Tensor | None = None


class DecoderLayer(RecomputableLayer):
    """Updates centers, and with some update rules pixels; see `call`.

    Args:
        settings: sizes, activation and update rule.
        head_settings: sizes of the layer's own prediction; may be None where `settings.deep_supervision` is false.
        normalization: settings of the batch norms.

    Raises:
        ValueError: deep supervision is asked for without `head_settings`.
    """

    def __init__(
        self,
        settings: TransformerDecoderSettings,
        head_settings: HeadSettings | None,
        normalization: Normalization,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.settings = settings
        self.normalization = normalization
        self.activate = activation(settings.activation)

        def linear(
            channels: int, name: str, activation: str | None = settings.activation, gamma: str = "ones"
        ) -> LinearNorm:
            return LinearNorm(channels, normalization, activation, gamma_initializer=gamma, name=name)

        self.center_projection = linear(settings.bottleneck_channels, "center_projection")
        self.pixel_projection = linear(settings.bottleneck_channels, "pixel_projection")
        self.predictor = None
        if settings.deep_supervision:
            if head_settings is None:
                raise ValueError(f"{self.name}: expected head_settings, as deep_supervision is true, got None")
            self.predictor = PredictionHead(head_settings, normalization, name="predictor")
        self.feed_forward = [
            linear(settings.feed_forward_channels, "feed_forward1"),
            linear(settings.center_channels, "feed_forward2", activation=None, gamma="zeros"),
        ]

    def build(self, pixel_shape):
        # Only now, because the rule has to know the number of pixel channels.
        rule = UPDATE_RULES[self.settings.update_rule]
        self.rule = rule(self.settings, pixel_shape[-1], self.normalization)
        super().build(pixel_shape)

    def call(
        self,
        pixels: tf.Tensor,
        centers: tf.Tensor,
        previous_logits: tf.Tensor | None = None,
        training: bool = False,
    ) -> LayerOutput:
        """Computes one layer.

        Args:
            pixels: [B, h, w, C], not activated.
            centers: [B, N, center_channels], float32.
            previous_logits: [B, h', w', N], assignment logits of the layer before, or None.
            training: whether batch norms use the statistics of the batch, and branches are dropped.
        """
        projected = self.pixel_projection(flatten_pixels(self.activate(pixels, training)), training=training)
        projected = unflatten_pixels(projected, pixels)
        projected_centers = self.center_projection(centers, training=training)
        prediction = None
        if self.predictor is not None:
            prediction = self.predictor(projected, projected_centers, projected_centers, training=training)
        inputs = RuleInput(projected, projected_centers, centers, previous_logits, prediction)
        update = self.rule(inputs, training=training)
        if update.pixel_update is not None:
            pixels += tf.cast(self._drop(update.pixel_update, training), pixels.dtype)
        # One drop path for each branch, so that a center may get one update without the other.
        for branch in update.center_updates:
            centers += as_float32(self._drop(branch, training))
        centers = self._feed_forward(self.activate(centers, training), training)
        return LayerOutput(
            pixels, centers, update.assignment, update.assignment_logits, prediction, update.reference_boxes
        )

    def _feed_forward(self, centers: tf.Tensor, training: bool) -> tf.Tensor:
        hidden = self.feed_forward[0](centers, training=training)
        hidden = self.feed_forward[1](hidden, training=training)
        return self.activate(centers + as_float32(self._drop(hidden, training)), training)

    def _drop(self, branch: tf.Tensor, training: bool) -> tf.Tensor:
        return drop_path(branch, self.settings.keep_prob, training)
