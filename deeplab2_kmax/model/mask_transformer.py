"""The network: pixel encoder, pixel decoder, transformer decoder and heads.

image -> pixel encoder -> pixel decoder -> transformer decoder -> masks and classes of the cluster centers
                    \\-> semantic branch (an auxiliary loss)
"""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.model.heads import Prediction, PredictionHead, SegmentationHead
from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.resize import resize_like
from deeplab2_kmax.model.pixel_decoder import PixelDecoder
from deeplab2_kmax.model.semantic_branch import SemanticDecoder
from deeplab2_kmax.model.transformer_decoder import TransformerDecoder


class MaskTransformer(tf.keras.Model):
    """Images to the masks and classes of cluster centers.

    `model(images, training=False)` takes float32 RGB [B, H, W, 3] in 0 .. 255 and returns a dict, with h, w at the
    output stride:

        pixel_space_mask_logits         [B, h, w, N]
        transformer_class_logits        [B, N, classes + 1]: thing classes, stuff classes, void
        pixel_space_normalized_feature  [B, h, w, D] of unit length
        semantic_logits                 [B, h', w', semantic classes]
        auxiliary_outputs_pred          (training only) tuple of dicts with the first three, one a decoder layer,
                                        resized to h, w
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
        super().__init__(name=name)
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
        encoder_features = self.pixel_encoder(images / 127.5 - 1.0, training=training)
        pixel_features = self.pixel_decoder(encoder_features, training=training)
        class_embedding, mask_embedding, layer_predictions = self.transformer_decoder(pixel_features, training=training)
        prediction = self.prediction_head(pixel_features[-1], class_embedding, mask_embedding, training=training)
        outputs = _as_dict(prediction)
        outputs["semantic_logits"] = self._semantic_logits(encoder_features, training)
        if training:
            outputs["auxiliary_outputs_pred"] = tuple(
                _as_dict(_resized(auxiliary, prediction)) for auxiliary in layer_predictions
            )
        return outputs

    def _semantic_logits(self, encoder_features, training):
        x = encoder_features["stage5"]
        if self.semantic_decoder is not None:
            activate = activation(self.pixel_encoder.activation if self.activate_semantic_skips else None)
            skips = {f"res{name[-1]}": activate(feature) for name, feature in encoder_features.items()}
            x = self.semantic_decoder(x, skips, training=training)
        return self.semantic_head(x, training=training)


def _as_dict(prediction: Prediction) -> dict[str, tf.Tensor]:
    return {
        "pixel_space_mask_logits": prediction.mask_logits,
        "transformer_class_logits": prediction.class_logits,
        "pixel_space_normalized_feature": prediction.pixel_feature,
    }


def _resized(prediction: Prediction, final: Prediction) -> Prediction:
    """`prediction` with its maps brought to the resolution of `final`."""
    return prediction._replace(
        mask_logits=resize_like(prediction.mask_logits, final.mask_logits),
        pixel_feature=resize_like(prediction.pixel_feature, final.pixel_feature),
    )
