"""The kMaX skeleton as a whole: pixel encoder, pixel decoder, transformer decoder and heads.

image -> pixel encoder -> pixel decoder <-> transformer decoder -> masks and classes of the cluster centers
                    \\-> semantic branch (an auxiliary loss)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from deeplab2_kmax.model.heads import Prediction, PredictionHead, SegmentationHead
from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.precision import as_float32
from deeplab2_kmax.model.outputs import Intermediates, layer_intermediates, model_outputs, prediction_outputs
from deeplab2_kmax.model.pixel_decoder import PixelDecoder
from deeplab2_kmax.model.semantic_branch import SemanticDecoder
from deeplab2_kmax.model.summary import Summary
from deeplab2_kmax.model.transformer_decoder import DecoderState, TransformerDecoder


class _Features(NamedTuple):
    """All that the network computes except the semantic branch.

    Attributes:
        encoder: features of the pixel encoder, "stage1" .. "stage5".
        pixels: features of the pixel decoder's stages, before the decoder layers there.
        initial_centers: [B, N, C], cluster centers before the first decoder layer.
        state: of the transformer decoder after its last layer.
        prediction: the final one.
    """

    encoder: dict[str, tf.Tensor]
    pixels: list[tf.Tensor]
    initial_centers: tf.Tensor
    state: DecoderState
    prediction: Prediction


class MaskTransformer(Summary, tf.keras.Model):
    """Predicts the masks and classes of cluster centers from images.

    `model(images, training=False)` takes float32 RGB [B, H, W, 3] in 0 .. 255 and returns a dict of float32 tensors;
    h and w are height and width at the stride of the masks:

        pixel_space_mask_logits         [B, h, w, N]
        transformer_class_logits        [B, N, classes + 1]: thing classes, stuff classes, void
        pixel_space_normalized_feature  [B, h, w, D] of unit length
        semantic_logits                 [B, h', w', semantic classes]
        auxiliary_outputs_pred          (in training with deep supervision) tuple of dicts with the first three, one for
                                        each decoder layer, resized to h, w
        reference_masks                 (in training of location-sensitive layers) tuple of [B, h', w', N] in 0 .. 1,
                                        one for each decoder layer, at its stride

    `model.intermediates(images)` returns what the network computes on the way, by name.

    Args:
        pixel_encoder: from `build_pixel_encoder`.
        pixel_decoder, transformer_decoder: take turns, one stage at a time.
        prediction_head: for the final prediction.
        semantic_head: for the semantic logits.
        semantic_decoder: between encoder and semantic head; None: the head takes the encoder's last stage.
        activate_semantic_skips: whether the features that the semantic decoder takes from the encoder are activated.
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
        # The parts are layers with a precision of their own. The model itself is float32, so that Keras leaves images
        # alone: in bfloat16 the values 0 .. 255 would lose their last bits.
        super().__init__(name=name, dtype="float32")
        self.pixel_encoder = pixel_encoder
        self.pixel_decoder = pixel_decoder
        self.transformer_decoder = transformer_decoder
        self.prediction_head = prediction_head
        self.semantic_decoder = semantic_decoder
        self.semantic_head = semantic_head
        self.activate_semantic_skips = activate_semantic_skips

    # Autograph would rewrite the source for control flow that depends on tensors. There is none, and the rewriting
    # takes longer than the tracing itself.
    @tf.autograph.experimental.do_not_convert
    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, Any]:
        features = self._features(images, training)
        semantic_logits = self._semantic_logits(features.encoder, training)
        return model_outputs(features.prediction, features.state.outputs, semantic_logits, training)

    @property
    def backbone_variables(self) -> list[tf.Variable]:
        """Trainable variables that may come from pretraining and can have a learning rate of their own.

        These are the pixel encoder's.
        """
        return self.pixel_encoder.trainable_variables

    def intermediates(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs inference and returns what the network computes on the way.

        Args:
            images: float32 RGB [B, H, W, 3] in 0 .. 255.

        Returns:
            Float32 tensors by name, in the order of computation, in a dict that suggests names for mistyped ones. h, w
            and C differ from place to place, and <layer> is, for example, stride32_layer1:

                pixel_encoder/stage1 .. stage5                     [B, h, w, C], not activated
                pixel_decoder/stride32 ..                          [B, h, w, C], not activated, before the layers there
                transformer_decoder/<layer>/centers_before, centers_after    [B, N, C]
                transformer_decoder/<layer>/assignment             [B, h, w, N], sums to one over the centers
                transformer_decoder/<layer>/assignment_logits      [B, h, w, N], where the update rule has them
                transformer_decoder/<layer>/pixels                 [B, h, w, C], after the layer's pixel update
                transformer_decoder/<layer>/reference_boxes        [B, N, 4], where the update rule has them
                outputs/<name>                                     outputs of the model
        """
        features = self._features(images, training=False)
        named = Intermediates({f"pixel_encoder/{name}": as_float32(x) for name, x in features.encoder.items()})
        named.update({f"pixel_decoder/stride{32 >> stage}": as_float32(x) for stage, x in enumerate(features.pixels)})
        names = [layer.name for layer in self.transformer_decoder.layers]
        named.update(layer_intermediates(names, features.initial_centers, features.state.outputs))
        named.update({f"outputs/{name}": x for name, x in prediction_outputs(features.prediction).items()})
        return named

    def _features(self, images: tf.Tensor, training: bool) -> _Features:
        # Encoders take images in [-1, 1], as in DeepLab2.
        encoder_features = self.pixel_encoder(images / 127.5 - 1.0, training=training)
        state = self.transformer_decoder.initial_state(tf.shape(images)[0])
        initial_centers, x, pixel_features = state.centers, None, []
        for stage, skip in enumerate(self.pixel_decoder.skips(encoder_features)):
            x = self.pixel_decoder.stage(stage, x, skip, training=training)
            pixel_features.append(x)
            # The decoder layers may update the pixels too; the next stage goes on from the updated ones.
            x, state = self.transformer_decoder.update(stage, x, state, training=training)
        class_embedding, mask_embedding = self.transformer_decoder.embeddings(state.centers, training=training)
        # `x` goes to the head without activation, unlike in MaX-DeepLab's skeleton: DeepLab2's kMaX does so.
        prediction = self.prediction_head(x, class_embedding, mask_embedding, training=training)
        return _Features(encoder_features, pixel_features, initial_centers, state, prediction)

    def _semantic_logits(self, encoder_features: Mapping[str, tf.Tensor], training: bool) -> tf.Tensor:
        x = encoder_features["stage5"]
        if self.semantic_decoder is not None:
            activate = activation(self.pixel_encoder.activation if self.activate_semantic_skips else None)
            # Configs know the encoder's stages by DeepLab2's names, "res2" for stage 2.
            skips = {f"res{name[-1]}": activate(feature) for name, feature in encoder_features.items()}
            x = self.semantic_decoder(x, skips, training=training)
        return self.semantic_head(x, training=training)
