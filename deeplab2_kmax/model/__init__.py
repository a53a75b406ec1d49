"""The network, from an experiment config: `build_model(config)`."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from deeplab2_kmax.config import require_supported
from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.model.dual_path.network import DualPathTransformer
from deeplab2_kmax.model.dual_path.settings import ACTIVATION as DUAL_PATH_ACTIVATION
from deeplab2_kmax.model.dual_path.settings import DualPathSettings
from deeplab2_kmax.model.heads import HeadSettings, PredictionHead, SegmentationHead
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.layers.precision import layers_in
from deeplab2_kmax.model.layers.recomputation import recompute_blocks
from deeplab2_kmax.model.mask_transformer import MaskTransformer
from deeplab2_kmax.model.pixel_decoder import PixelDecoder, PixelDecoderSettings
from deeplab2_kmax.model.pixel_encoders import build_pixel_encoder
from deeplab2_kmax.model.semantic_branch import SemanticDecoder, SemanticDecoderSettings
from deeplab2_kmax.model.transformer_decoder import TransformerDecoder, TransformerDecoderSettings
from deeplab2_kmax.protos import config_pb2, model_pb2

__all__ = ["DualPathTransformer", "MaskTransformer", "build_model"]

# Smallest image with more than one pixel at stride 32; variables do not depend on the size.
_BUILD_SIZE = 33


def build_model(config: config_pb2.ExperimentOptions) -> tf.keras.Model:
    """Builds the network of `config` with all its variables, initialized at random.

    Args:
        config: from `load_config`.

    Layers compute in `config.model_options.precision`; variables, inputs and outputs are float32.

    Returns:
        A `MaskTransformer` (the kMaX skeleton) or a `DualPathTransformer` (MaX-DeepLab's).

    Raises:
        ConfigError: where the model is of a family or encoder that is not implemented.
    """
    require_supported(config)
    # Some layers make others when they see their input.
    with layers_in(config.model_options.precision):
        model = _compose(config)
        # Variables are created when the layers see the shape of their input; a symbolic one is enough.
        model(tf.keras.Input([_BUILD_SIZE, _BUILD_SIZE, 3], dtype="float32"), training=False)
    if config.model_options.recompute_blocks:
        recompute_blocks(model)
    return model


def _compose(config: config_pb2.ExperimentOptions) -> tf.keras.Model:
    solver = config.trainer_options.solver_options
    normalization = Normalization(solver.batchnorm_momentum, solver.batchnorm_epsilon, solver.use_sync_batchnorm)
    own_skeleton = ENCODERS[config.model_options.backbone.name].has_own_skeleton
    return (_compose_dual_path if own_skeleton else _compose_kmax)(config, normalization)


def _compose_kmax(config: config_pb2.ExperimentOptions, normalization: Normalization) -> MaskTransformer:
    options = config.model_options.max_deeplab
    heads = _head_settings(config, "gelu")
    return MaskTransformer(
        build_pixel_encoder(config, normalization),
        PixelDecoder(PixelDecoderSettings.from_options(options.pixel_decoder), normalization),
        TransformerDecoder(TransformerDecoderSettings.from_options(options), heads, normalization),
        PredictionHead(heads, normalization, name="prediction_head"),
        *_semantic_branch(config.model_options, normalization, "gelu"),
        options.activate_semantic_skips,
    )


def _compose_dual_path(config: config_pb2.ExperimentOptions, normalization: Normalization) -> DualPathTransformer:
    return DualPathTransformer(
        DualPathSettings.from_options(config.model_options),
        _head_settings(config, DUAL_PATH_ACTIVATION),
        normalization,
        *_semantic_branch(config.model_options, normalization, DUAL_PATH_ACTIVATION),
    )


def _head_settings(config: config_pb2.ExperimentOptions, activation: str) -> HeadSettings:
    options = config.model_options.max_deeplab.pixel_space_head
    dataset = load_dataset(config.train_dataset_options.dataset)
    num_classes = len(dataset.thing_class_ids) + len(dataset.stuff_class_ids)
    return HeadSettings(options.head_channels, options.output_channels, num_classes, activation)


def _semantic_branch(
    options: model_pb2.ModelOptions, normalization: Normalization, activation: str
) -> tuple[SegmentationHead, SemanticDecoder | None]:
    head = options.max_deeplab.auxiliary_semantic_head
    semantic_head = SegmentationHead(
        head.head_channels, head.output_channels, normalization, activation, name="semantic_head"
    )
    # MaX-DeepLab's extra stacks give the head features of the masks' stride; as in DeepLab2 it takes no decoder then.
    if not options.max_deeplab.use_auxiliary_semantic_decoder or options.backbone.extra_decoder_stacks:
        return semantic_head, None
    settings = dataclasses.replace(SemanticDecoderSettings.from_options(options), activation=activation)
    return semantic_head, SemanticDecoder(settings, normalization)
