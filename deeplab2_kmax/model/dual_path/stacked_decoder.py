"""Stacked decoder: features go to the mask stride and back to the output stride, once or several times.

On the way they are fused with earlier features of the same stride. It has the shape of a stacked hourglass (Newell et
al., ECCV 2016), as in MaX-DeepLab (Wang et al., CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from deeplab2_kmax.model.dual_path.settings import DualPathSettings
from deeplab2_kmax.model.dual_path.stage import DualPathStage
from deeplab2_kmax.model.layers.fusion import ResizedFusion
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.pixel_encoders.residual_stages import Stage
from deeplab2_kmax.model.transformer_decoder import DecoderState

# Nominal stride of the encoder's last stage. Stages at the output stride are made like it, whatever stride that is.
_LAST_STRIDE = 32


def decoder_stage(
    settings: DualPathSettings, stride: int, blocks: int, normalization: Normalization, name: str
) -> DualPathStage:
    """Makes a stage that stays at one stride.

    Args:
        settings: of the network.
        stride: of the stage's input and output.
        blocks: number of residual blocks.
        normalization: settings of the batch norms.
        name: of the stage.
    """
    start = _LAST_STRIDE if stride == settings.residual.output_stride else stride
    layer = settings.layer_at(stride) if start >= settings.layers_beyond_stride > 0 else None
    plan = Stage(settings.decoder_filters(stride), blocks, start, stride=1)
    return DualPathStage(plan, settings.residual, layer, normalization, name=name)


class DecoderStep(tf.keras.layers.Layer):
    """Fuses the current features with the last two of its own stride, then refines them by a stage.

    Args:
        fusion: the fusion.
        stage: the stage.
    """

    def __init__(self, fusion: ResizedFusion, stage: DualPathStage, name: str):
        super().__init__(name=name)
        self.fusion = fusion
        self.stage = stage

    def call(
        self, features: Sequence[tf.Tensor], state: DecoderState, training: bool = False
    ) -> tuple[tf.Tensor, DecoderState]:
        return self.stage(self.fusion(features, training=training), state, training=training)


class StackedDecoder(tf.keras.layers.Layer):
    """A chain of steps, one for each of `strides`.

    Args:
        settings: of the network.
        strides: of the steps, in order; each is half or twice the one before.
        first_number: number of the first step, counted over all stacked decoders of the network.
        blocks: number of residual blocks of each step.
        normalization: settings of the batch norms.
        name: of the decoder; names of its steps begin with it.
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
            # Public under its number, because DeepLab2's checkpoints number the steps of all stacked decoders together.
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

    def decode(
        self, x: tf.Tensor, history: dict[int, list[tf.Tensor]], state: DecoderState, training: bool = False
    ) -> tuple[list[tf.Tensor], DecoderState]:
        """Runs all steps.

        Args:
            x: [B, h, w, C] at the output stride, before its activation.
            history: for each stride the features so far, before their activation. The output of each step is appended.
            state: of the centers.
            training: whether batch norms use the statistics of the batch.

        Returns:
            (outputs of the steps, before their activation; state after the last step).
        """
        outputs = []
        for stride, step in zip(self.strides, self._steps):
            x, state = step([x, *history[stride][-2:]], state, training=training)
            history[stride].append(x)
            outputs.append(x)
        return outputs, state
