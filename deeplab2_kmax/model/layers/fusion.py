"""Fusion of features of different strides and widths (MaX-DeepLab's stacked decoder; Wang et al., CVPR 2021)."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation as activation_by_name
from deeplab2_kmax.model.layers.convolution import ConvNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.resize import resize_like


class ResizedFusion(tf.keras.layers.Layer):
    """Adds features [B, h_i, w_i, C_i], at the size of the last one: -> [B, H, W, channels].

    Each is activated and projected to `channels`, then resized; one that has `channels` channels already is taken as it
    is.

    Args:
        channels: of the result.
        normalization: settings of the batch norms.
        activation: "relu" or "gelu".
        halve_first: the first feature has half the stride of the others, so that its projection strides in place of
            being resized.
    """

    def __init__(
        self,
        channels: int,
        normalization: Normalization,
        activation: str = "relu",
        halve_first: bool = False,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.channels = channels
        self.normalization = normalization
        self.activate = activation_by_name(activation)
        self.halve_first = halve_first

    def build(self, input_shapes):
        widths = [shape[-1] for shape in input_shapes]
        self.strided = None
        if self.halve_first and widths[0] != self.channels:
            self.strided = ConvNorm(self.channels, 1, self.normalization, stride=2, name="strided")
            widths[0] = self.channels
        self.projections = [
            None if width == self.channels else ConvNorm(self.channels, 1, self.normalization, name=f"projection{i}")
            for i, width in enumerate(widths)
        ]
        super().build(input_shapes)

    def call(self, features, training=False):
        features = list(features)
        size = features[-1]
        if self.strided is not None:
            features[0] = self.strided(self.activate(features[0], training), training=training)
        for i, projection in enumerate(self.projections):
            if projection is not None:
                features[i] = projection(self.activate(features[i], training), training=training)
        return tf.add_n([resize_like(feature, size) for feature in features])
