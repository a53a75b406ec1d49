"""Stacked decoder: features go down to the mask stride and up again, several times, fused with earlier ones on the way.

The shape is that of a stacked hourglass (Newell et al., ECCV 2016), as in MaX-DeepLab (Wang et al., CVPR 2021).
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.dual_path.settings import DualPathSettings
from deeplab2_kmax.model.dual_path.stage import DualPathStage
from deeplab2_kmax.model.layers.fusion import ResizedFusion
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.pixel_encoders.residual_stages import Stage
from deeplab2_kmax.model.transformer_decoder import DecoderState

# Nominal stride of the stages at the output stride: they are made like the encoder's last.
_LAST_STRIDE = 32


def decoder_stage(
    settings: DualPathSettings, stride: int, blocks: int, normalization: Normalization, name: str
) -> DualPathStage:
    """A stage that stays at `stride`."""
    start = _LAST_STRIDE if stride == settings.residual.output_stride else stride
    layer = settings.layer_at(stride) if start >= settings.layers_beyond_stride > 0 else None
    plan = Stage(settings.decoder_filters(stride), blocks, start, stride=1)
    return DualPathStage(plan, settings.residual, layer, normalization, name=name)


class DecoderStep(tf.keras.layers.Layer):
    """Fuses the current features with the last two of its own stride, then refines them by a stage."""

    def __init__(self, fusion: ResizedFusion, stage: DualPathStage, name: str):
        super().__init__(name=name)
        self.fusion = fusion
        self.stage = stage

    def call(self, features, state: DecoderState, training=False) -> tuple[tf.Tensor, DecoderState]:
        return self.stage(self.fusion(features, training=training), state, training=training)


class StackedDecoder(tf.keras.layers.Layer):
    """A chain of steps, one for each of `strides`.

    Args:
        settings: of the network.
        strides: of the steps, in order; each half or twice the one before.
        first_number: of the first step, counted over all stacked decoders of the network.
        blocks: residual blocks of each step.
        normalization: settings of the batch norms.
    """

    def __init__(
        self,
        settings: DualPathSettings,
        strides: list[int],
        first_number: int,
        blocks: int,
        normalization: Normalization,
        name: str,
    ):
        super().__init__(name=name)
        self.strides = tuple(strides)
        self._steps = []
        previous = settings.residual.output_stride
        for number, stride in enumerate(strides, start=first_number):
            fusion = ResizedFusion(
                4 * settings.decoder_filters(stride),
                normalization,
                settings.residual.activation,
                halve_first=stride > previous,
                name=f"{name}{number}_fusion",
            )
            stage = decoder_stage(settings, stride, blocks, normalization, f"{name}{number}")
            self._steps.append(DecoderStep(fusion, stage, name=f"{name}{number}_step"))
            # Known by number, as checkpoints know it.
            setattr(self, f"step{number}", self._steps[-1])
            previous = stride

    @property
    def stages(self) -> list[DualPathStage]:
        """The stages of the steps."""
        return [step.stage for step in self._steps]

    @property
    def layer_variables(self) -> list[tf.Variable]:
        """Trainable variables of the decoder layers."""
        return [variable for stage in self.stages for variable in stage.layer_variables]

    def decode(self, x, history: dict[int, list[tf.Tensor]], state: DecoderState, training=False):
        """Runs all steps.

        Args:
            x: [B, h, w, C] at the output stride, before its activation.
            history: for each stride the features so far, before their activation; each step's output is appended.
            state: of the centers.

        Returns:
            The outputs of the steps, before their activation, and the state after them.
        """
        outputs = []
        for stride, step in zip(self.strides, self._steps):
            x, state = step([x, *history[stride][-2:]], state, training=training)
            history[stride].append(x)
            outputs.append(x)
        return outputs, state
