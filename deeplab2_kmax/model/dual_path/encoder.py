"""The encoder of MaX-DeepLab's skeleton: a residual network with decoder layers in its last stages."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.dual_path.settings import DualPathSettings
from deeplab2_kmax.model.dual_path.stage import DualPathStage
from deeplab2_kmax.model.layers.convolution import ConvNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.stems import InceptionStem
from deeplab2_kmax.model.pixel_encoders.residual_stages import Stage
from deeplab2_kmax.model.transformer_decoder import DecoderState


class DualPathEncoder(tf.keras.layers.Layer):
    """Image [B, H, W, 3] and the centers' state -> {"stage1" .. "stage5"} before their activation, and the new state.

    The strides are 2, 4, 8, 16 and 32, but none is larger than the output stride.

    Args:
        settings: of the network.
        normalization: settings of the batch norms.
    """

    def __init__(self, settings: DualPathSettings, normalization: Normalization, name: str = "pixel_encoder"):
        super().__init__(name=name)
        residual = settings.residual
        if settings.stem == "inception":
            self.stem = InceptionStem(settings.stem_channels, normalization, residual.activation)
        else:
            self.stem = ConvNorm(settings.stem_channels, 3, normalization, stride=2, name="stem")

        def stage(filters: int, blocks: int, start: int, stride: int, number: int) -> DualPathStage:
            plan = Stage(filters, blocks, start, stride)
            layer = settings.layer_at(start) if plan.end >= settings.layers_beyond_stride > 0 else None
            return DualPathStage(plan, residual, layer, normalization, name=f"stage{number}")

        self.first_stage = None
        if settings.first_stage_blocks:
            self.first_stage = stage(settings.stem_channels // 2, settings.first_stage_blocks, 2, 1, 1)
        self.stages = [
            stage(filters, blocks, 2**index, 2, index + 1)
            for index, (filters, blocks) in enumerate(zip(settings.stage_filters, settings.stage_blocks), start=1)
        ]

    @property
    def layer_variables(self) -> list[tf.Variable]:
        """Trainable variables of the decoder layers."""
        return [variable for stage in self.stages for variable in stage.layer_variables]

    def call(
        self, image: tf.Tensor, state: DecoderState, training: bool = False
    ) -> tuple[dict[str, tf.Tensor], DecoderState]:
        x = self.stem(image, training=training)
        if self.first_stage is not None:
            x, state = self.first_stage(x, state, training=training)
        features = {"stage1": x}
        for number, stage in enumerate(self.stages, start=2):
            x, state = stage(x, state, training=training)
            features[f"stage{number}"] = x
        return features, state
