"""The network: pixel encoder, pixel decoder, transformer decoder and heads.

image -> pixel encoder -> pixel decoder <-> transformer decoder -> masks and classes of the cluster centers
                    \\-> semantic branch (an auxiliary loss)
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeplab2_kmax.model.heads import Prediction, PredictionHead, SegmentationHead
from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.precision import as_float32
from deeplab2_kmax.model.outputs import layer_intermediates, model_outputs, prediction_outputs
from deeplab2_kmax.model.pixel_decoder import PixelDecoder
from deeplab2_kmax.model.semantic_branch import SemanticDecoder
from deeplab2_kmax.model.transformer_decoder import DecoderState, TransformerDecoder


class _Features(NamedTuple):
    """Everything the network computes but the semantic branch.

    encoder: {"stage1" ..}. pixels: of each stage of the pixel decoder. initial_centers: [B, N, C].
    """

    encoder: dict[str, tf.Tensor]
    pixels: list[tf.Tensor]
    initial_centers: tf.Tensor
    state: DecoderState
    prediction: Prediction


class MaskTransformer(tf.keras.Model):
    """Images to the masks and classes of cluster centers.

    `model(images, training=False)` takes float32 RGB [B, H, W, 3] in 0 .. 255 and returns a dict, with h, w at the
    output stride:

        pixel_space_mask_logits         [B, h, w, N]
        transformer_class_logits        [B, N, classes + 1]: thing classes, stuff classes, void
        pixel_space_normalized_feature  [B, h, w, D] of unit length
        semantic_logits                 [B, h', w', semantic classes]
        auxiliary_outputs_pred          (training with deep supervision only) tuple of dicts with the first three, one
                                        a decoder layer, resized to h, w
        reference_masks                 (training of location-sensitive layers only) tuple of [B, h', w', N] in 0 .. 1,
                                        one a decoder layer, at its stride

    `model.intermediates(images)` gives what lies between, by name.
    """

    def __init__(
        self,
        pixel_encoder: tf.keras.layers.Layer,
        pixel_decoder: PixelDecoder,
        transformer_decoder: TransformerDecoder,
        prediction_head: PredictionHead,
        semantic_head: SegmentationHead,
        semantic_decoder: SemanticDecoder | None = None,
        activate_semantic_skips: bool = True,
        name: str = "mask_transformer",
    ):
        # What the parts below compute in is theirs; around them, and in what comes out, all is float32.
        super().__init__(name=name, dtype="float32")
        self.pixel_encoder = pixel_encoder
        self.pixel_decoder = pixel_decoder
        self.transformer_decoder = transformer_decoder
        self.prediction_head = prediction_head
        self.semantic_decoder = semantic_decoder
        self.semantic_head = semantic_head
        self.activate_semantic_skips = activate_semantic_skips

    # The network has no data-dependent control flow; converting its source would take longer than tracing it.
    @tf.autograph.experimental.do_not_convert
    def call(self, images, training=False):
        features = self._features(images, training)
        semantic_logits = self._semantic_logits(features.encoder, training)
        return model_outputs(features.prediction, features.state.outputs, semantic_logits, training)

    @property
    def backbone_variables(self) -> list[tf.Variable]:
        """Trainable variables that pretraining gives, for a learning rate of their own: the pixel encoder's."""
        return self.pixel_encoder.trainable_variables

    def intermediates(self, images) -> dict[str, tf.Tensor]:
        """What the network computes on its way, in inference, by name.

        `images`: float32 RGB [B, H, W, 3] in 0 .. 255. In the order of computation, with h, w, C of each place:

            pixel_encoder/stage1 .. stage5                      [B, h, w, C], not activated
            pixel_decoder/stride32 ..                           [B, h, w, C], not activated, before the layers there
            transformer_decoder/<layer>/centers_before, centers_after    [B, N, C]
            transformer_decoder/<layer>/assignment              [B, h, w, N], sums to one over the centers
            transformer_decoder/<layer>/assignment_logits       [B, h, w, N], where the rule has them
            transformer_decoder/<layer>/pixels                  [B, h, w, C], after the layer's pixel update
            transformer_decoder/<layer>/reference_boxes         [B, N, 4], where the rule has them
            outputs/<name>                                      what the model returns

        with <layer> such as stride32_layer1.
        """
        features = self._features(images, training=False)
        named = {f"pixel_encoder/{name}": as_float32(x) for name, x in features.encoder.items()}
        named.update({f"pixel_decoder/stride{32 >> stage}": as_float32(x) for stage, x in enumerate(features.pixels)})
        names = [layer.name for layer in self.transformer_decoder.layers]
        named.update(layer_intermediates(names, features.initial_centers, features.state.outputs))
        named.update({f"outputs/{name}": x for name, x in prediction_outputs(features.prediction).items()})
        return named

    def _features(self, images, training) -> _Features:
        encoder_features = self.pixel_encoder(images / 127.5 - 1.0, training=training)
        state = self.transformer_decoder.initial_state(tf.shape(images)[0])
        initial_centers, x, pixel_features = state.centers, None, []
        for stage, skip in enumerate(self.pixel_decoder.skips(encoder_features)):
            x = self.pixel_decoder.stage(stage, x, skip, training=training)
            pixel_features.append(x)
            x, state = self.transformer_decoder.update(stage, x, state, training=training)
        embeddings = self.transformer_decoder.embeddings(state.centers, training=training)
        prediction = self.prediction_head(x, *embeddings, training=training)
        return _Features(encoder_features, pixel_features, initial_centers, state, prediction)

    def _semantic_logits(self, encoder_features, training):
        x = encoder_features["stage5"]
        if self.semantic_decoder is not None:
            activate = activation(self.pixel_encoder.activation if self.activate_semantic_skips else None)
            skips = {f"res{name[-1]}": activate(feature) for name, feature in encoder_features.items()}
            x = self.semantic_decoder(x, skips, training=training)
        return self.semantic_head(x, training=training)
