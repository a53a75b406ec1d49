"""Fusion of features of different strides and widths, as DeepLab2 does it in all its decoders.

Every feature is activated and projected to the wanted number of channels by a 1x1 convolution, then resized to the
height and width of the last feature, and all are added. A feature that has the wanted number of channels already is
taken as it is, without activation and projection. `Fusion` holds this logic. The two subclasses differ in the names
under which checkpoints know the projections: `CoarseToFineFusion` serves kMaX-DeepLab's pixel decoder,
`ResizedFusion` MaX-DeepLab's stacked decoder (Wang et al., CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from deeplab2_kmax.model.layers.activations import activation as activation_by_name
from deeplab2_kmax.model.layers.convolution import ConvNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.resize import resize_like


class Fusion(tf.keras.layers.Layer):
    """What the fusions share.

    Args:
        channels: of the result.
        normalization: settings of the batch norms.
        activation: "relu" or "gelu".
    """

    def __init__(self, channels: int, normalization: Normalization, activation: str, name: str | None = None):
        super().__init__(name=name)
        self.channels = channels
        self.normalization = normalization
        self.activate = activation_by_name(activation)

    def projection(self, width: int, name: str) -> ConvNorm | None:
        """The projection of a feature with `width` channels; None where it needs none."""
        return None if width == self.channels else ConvNorm(self.channels, 1, self.normalization, name=name)

    def aligned(
        self, features: Sequence[tf.Tensor], projections: Sequence[ConvNorm | None], training: bool
    ) -> list[tf.Tensor]:
        """The features [B, h_i, w_i, C_i], projected and at the size of the last one: each [B, H, W, channels]."""
        projected = [
            feature if projection is None else self.activated_by(projection, feature, training)
            for feature, projection in zip(features, projections)
        ]
        # Resizing comes after the projection, which has fewer channels on the coarse grid.
        return [*(resize_like(feature, projected[-1]) for feature in projected[:-1]), projected[-1]]

    def activated_by(self, projection: ConvNorm, feature: tf.Tensor, training: bool) -> tf.Tensor:
        """Activates a feature, which comes without activation, and projects it."""
        return projection(self.activate(feature, training), training=training)


class CoarseToFineFusion(Fusion):
    """Adds a coarse feature [B, h, w, C1] to a finer one [B, H, W, C2]: [coarse, fine] -> [B, H, W, channels]."""

    def build(self, input_shapes):
        coarse, fine = input_shapes
        self.coarse = self.projection(coarse[-1], "coarse")
        self.fine = self.projection(fine[-1], "fine")
        super().build(input_shapes)

    def call(self, features: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        coarse, fine = self.aligned(features, [self.coarse, self.fine], training)
        return coarse + fine


class ResizedFusion(Fusion):
    """Adds any number of features [B, h_i, w_i, C_i], at the size of the last one: -> [B, H, W, channels].

    Args:
        channels, normalization, activation: of `Fusion`.
        halve_first: says that the first feature has half the stride of the others. Its projection, if it needs one,
            then has stride 2, so that no resizing is needed.
    """

    def __init__(
        self,
        channels: int,
        normalization: Normalization,
        activation: str = "relu",
        halve_first: bool = False,
        name: str | None = None,
    ):
        super().__init__(channels, normalization, activation, name)
        self.halve_first = halve_first

    def build(self, input_shapes):
        widths = [shape[-1] for shape in input_shapes]
        self.strided = None
        if self.halve_first and widths[0] != self.channels:
            self.strided = ConvNorm(self.channels, 1, self.normalization, stride=2, name="strided")
            widths[0] = self.channels
        # A list with gaps, not a shorter one: checkpoints know projections by the number of the feature.
        self.projections = [self.projection(width, f"projection{i}") for i, width in enumerate(widths)]
        super().build(input_shapes)

    def call(self, features: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        features = list(features)
        if self.strided is not None:
            features[0] = self.activated_by(self.strided, features[0], training)
        return tf.add_n(self.aligned(features, self.projections, training))
