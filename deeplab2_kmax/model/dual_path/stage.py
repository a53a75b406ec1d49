"""A stage of MaX-DeepLab's skeleton: residual blocks, each followed by a decoder layer."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.pixel_encoders.residual_stages import ResidualSettings, Stage, build_stage
from deeplab2_kmax.model.transformer_decoder import DecoderLayer, DecoderState, TransformerDecoderSettings


class DualPathStage(tf.keras.layers.Layer):
    """Pixels [B, h, w, C] and the centers' state -> pixels, not activated, and the state after the stage.

    Args:
        stage: the plan of the residual blocks.
        residual: what the blocks share with those of other stages.
        layer: settings of the decoder layer after each block; None: a stage without decoder layers. A layer has the
            drop path probability of the block before it, whatever `layer.keep_prob` is.
        normalization: settings of the batch norms.
        name: of the stage; names of blocks and layers begin with it.
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
        if layer is not None:
            for index in range(stage.blocks):
                settings = dataclasses.replace(layer, keep_prob=residual.keep_prob_at(stage.start_of(index)))
                # No head: MaX-DeepLab supervises its final prediction only.
                self.layers.append(DecoderLayer(settings, None, normalization, name=f"{name}_layer{index + 1}"))

    @property
    def layer_variables(self) -> list[tf.Variable]:
        """Trainable variables of the decoder layers."""
        return [variable for layer in self.layers for variable in layer.trainable_variables]

    def call(self, pixels: tf.Tensor, state: DecoderState, training: bool = False) -> tuple[tf.Tensor, DecoderState]:
        for index, block in enumerate(self.blocks):
            pixels = block(pixels, training=training)
            if self.layers:
                output = self.layers[index](pixels, state.centers, state.assignment_logits, training=training)
                pixels, state = output.pixels, state.after(output)
        return pixels, state
