"""MaX-DeepLab (Wang et al., CVPR 2021), and CMT-DeepLab on its skeleton: the network as a whole."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from deeplab2_kmax.model.dual_path.encoder import DualPathEncoder
from deeplab2_kmax.model.dual_path.settings import DualPathSettings
from deeplab2_kmax.model.dual_path.stacked_decoder import StackedDecoder, decoder_stage
from deeplab2_kmax.model.heads import HeadSettings, Prediction, PredictionHead, SegmentationHead
from deeplab2_kmax.model.layers.activations import activation
from deeplab2_kmax.model.layers.convolution import LinearNorm
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.precision import as_float32
from deeplab2_kmax.model.outputs import Intermediates, layer_intermediates, model_outputs, prediction_outputs
from deeplab2_kmax.model.semantic_branch import SemanticDecoder
from deeplab2_kmax.model.summary import Summary
from deeplab2_kmax.model.transformer_decoder import DecoderLayer, DecoderState


class _Features(NamedTuple):
    """All that the network computes except the semantic branch. Features are before their activation.

    Attributes:
        encoder: features of the encoder, "stage1" .. "stage5".
        semantic: [B, h, w, C], the feature that the semantic branch starts from.
        initial_centers: [B, N, C], cluster centers before the first decoder layer.
        state: of the centers after the last decoder layer.
        prediction: the final one.
    """

    encoder: dict[str, tf.Tensor]
    semantic: tf.Tensor
    initial_centers: tf.Tensor
    state: DecoderState
    prediction: Prediction


class DualPathTransformer(Summary, tf.keras.Model):
    """Predicts the masks and classes of cluster centers from images.

    Inputs and outputs are those of `MaskTransformer`, without `auxiliary_outputs_pred`: only the final prediction is
    supervised.

    Args:
        settings: sizes of the network.
        heads: sizes of the prediction head.
        normalization: settings of the batch norms.
        semantic_head: for the semantic logits.
        semantic_decoder: before the semantic head, or None.
    """

    def __init__(
        self,
        settings: DualPathSettings,
        heads: HeadSettings,
        normalization: Normalization,
        semantic_head: SegmentationHead,
        semantic_decoder: SemanticDecoder | None = None,
        name: str = "dual_path_transformer",
    ):
        # The parts are layers with a precision of their own. The model itself is float32, so that Keras leaves images
        # alone: in bfloat16 the values 0 .. 255 would lose their last bits.
        super().__init__(name=name, dtype="float32")
        self.output_stride = settings.residual.output_stride
        self.semantic_from_decoder = settings.extra_stacks > 0
        self.activate = activation(settings.residual.activation)
        channels = settings.layer.center_channels
        self.cluster_centers = self.add_weight(
            "cluster_centers",
            [1, settings.layer.num_centers, channels],
            initializer=tf.keras.initializers.TruncatedNormal(stddev=1.0),
        )
        self.pixel_encoder = DualPathEncoder(settings, normalization)
        backbone_strides = settings.backbone_strides()
        self.backbone_decoder = StackedDecoder(
            settings, backbone_strides, 1, settings.backbone_decoder_blocks, normalization, "backbone_decoder"
        )
        self._extra_stage = decoder_stage(
            settings, self.output_stride, settings.extra_blocks, normalization, "extra_stage"
        )
        # Public under the number of decoder steps before it, because DeepLab2's checkpoints count so.
        setattr(self, f"extra_stage{len(backbone_strides)}", self._extra_stage)
        self.extra_decoder = StackedDecoder(
            settings,
            settings.extra_strides(),
            len(backbone_strides) + 1,
            settings.extra_blocks,
            normalization,
            "extra_decoder",
        )
        self.class_embedding = LinearNorm(channels, normalization, settings.layer.activation, name="class_embedding")
        self.mask_embedding = LinearNorm(channels, normalization, settings.layer.activation, name="mask_embedding")
        self.prediction_head = PredictionHead(heads, normalization, name="prediction_head")
        self.semantic_decoder = semantic_decoder
        self.semantic_head = semantic_head

    @property
    def backbone_variables(self) -> list[tf.Variable]:
        """Trainable variables that may come from pretraining and can have a learning rate of their own.

        These are the ones that a classifier pretrained on ImageNet has: neither those of decoder layers nor those of
        the extra stage and the extra decoder.
        """
        layers = {id(v) for part in (self.pixel_encoder, self.backbone_decoder) for v in part.layer_variables}
        backbone = self.pixel_encoder.trainable_variables + self.backbone_decoder.trainable_variables
        return [variable for variable in backbone if id(variable) not in layers]

    # Autograph would rewrite the source for control flow that depends on tensors. There is none, and the rewriting
    # takes longer than the tracing itself.
    @tf.autograph.experimental.do_not_convert
    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, Any]:
        features = self._features(images, training)
        semantic_logits = self._semantic_logits(features, training)
        return model_outputs(features.prediction, features.state.outputs, semantic_logits, training)

    def intermediates(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Runs inference and returns what the network computes on the way, as `MaskTransformer.intermediates` does.

        Nothing is named `pixel_decoder/...`, as there is none. Layers are named after the stage they stand in, for
        example stage5_layer1.
        """
        features = self._features(images, training=False)
        named = Intermediates({f"pixel_encoder/{name}": as_float32(x) for name, x in features.encoder.items()})
        names = [layer.name for layer in self._decoder_layers()]
        named.update(layer_intermediates(names, features.initial_centers, features.state.outputs))
        named.update({f"outputs/{name}": x for name, x in prediction_outputs(features.prediction).items()})
        return named

    def _decoder_layers(self) -> list[DecoderLayer]:
        """All decoder layers, in the order of computation."""
        stages = [
            *self.pixel_encoder.stages,
            *self.backbone_decoder.stages,
            self._extra_stage,
            *self.extra_decoder.stages,
        ]
        return [layer for stage in stages for layer in stage.layers]

    def _features(self, images: tf.Tensor, training: bool) -> _Features:
        initial_centers = tf.tile(self.cluster_centers, [tf.shape(images)[0], 1, 1])
        features, state = self.pixel_encoder(images / 127.5 - 1.0, DecoderState(initial_centers), training=training)
        # For each stride its features so far, which later steps of the decoders are fused with. With output stride 16,
        # stages 4 and 5 both have stride 16; the later one replaces the earlier.
        history: dict[int, list[tf.Tensor]] = {}
        for stage, feature in enumerate(features.values(), start=1):
            history[min(2**stage, self.output_stride)] = [feature]
        x = features["stage5"]
        decoded, state = self.backbone_decoder.decode(x, history, state, training=training)
        backbone = decoded[-1] if decoded else x
        x, state = self._extra_stage(backbone, state, training=training)
        # The extra stage refines the last feature, so it takes its place.
        history[self.output_stride][-1] = x
        decoded, state = self.extra_decoder.decode(x, history, state, training=training)
        semantic = backbone
        if self.semantic_from_decoder:
            # The feature with which the extra decoder reaches the mask stride for the first time.
            strides = self.extra_decoder.strides
            semantic = decoded[strides.index(strides[-1])]
        prediction = self.prediction_head(
            self.activate(decoded[-1]),
            self.class_embedding(state.centers, training=training),
            self.mask_embedding(state.centers, training=training),
            training=training,
        )
        return _Features(features, semantic, initial_centers, state, prediction)

    def _semantic_logits(self, features: _Features, training: bool) -> tf.Tensor:
        x = self.activate(features.semantic)
        if self.semantic_decoder is not None:
            skips = {f"res{name[-1]}": self.activate(feature) for name, feature in features.encoder.items()}
            x = self.semantic_decoder(x, skips, training=training)
        return self.semantic_head(x, training=training)
