"""Residual blocks with decoder layers between them."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.pixel_encoders.residual_stages import ResidualSettings, Stage, build_stage
from deeplab2_kmax.model.transformer_decoder import DecoderLayer, DecoderState, TransformerDecoderSettings


class DualPathStage(tf.keras.layers.Layer):
    """Pixels [B, h, w, C] and the centers' state -> pixels, not activated, and state after the stage.

    Args:
        stage: its blocks.
        residual: what they share with those of other stages.
        layer: of the decoder layer behind each block, or None for a stage without; a layer keeps its branches as often
            in training as the block before it.
        normalization: settings of the batch norms.
    """

    def __init__(
        self,
        stage: Stage,
        residual: ResidualSettings,
        layer: TransformerDecoderSettings | None,
        normalization: Normalization,
        name: str,
    ):
        super().__init__(name=name)
        self.blocks = build_stage(stage, residual, normalization, name)
        self.layers = []
        for index in range(stage.blocks if layer else 0):
            settings = dataclasses.replace(layer, keep_prob=residual.keep_prob_at(stage.start_of(index)))
            self.layers.append(DecoderLayer(settings, None, normalization, name=f"{name}_layer{index + 1}"))

    @property
    def layer_variables(self) -> list[tf.Variable]:
        """Trainable variables of the decoder layers."""
        return [variable for layer in self.layers for variable in layer.trainable_variables]

    def call(self, pixels, state: DecoderState, training=False) -> tuple[tf.Tensor, DecoderState]:
        for index, block in enumerate(self.blocks):
            pixels = block(pixels, training=training)
            if self.layers:
                output = self.layers[index](pixels, state.centers, state.assignment_logits, training=training)
                pixels = output.pixels
                state = DecoderState(output.centers, output.assignment_logits, (*state.outputs, output))
        return pixels, state
