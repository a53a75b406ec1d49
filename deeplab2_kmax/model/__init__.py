"""The network, from an experiment config: `build_model(config)`."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.config import require_supported
from deeplab2_kmax.datasets import load_dataset
from deeplab2_kmax.model.heads import HeadSettings, PredictionHead, SegmentationHead
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.mask_transformer import MaskTransformer
from deeplab2_kmax.model.pixel_decoder import PixelDecoder, PixelDecoderSettings
from deeplab2_kmax.model.pixel_encoders import build_pixel_encoder
from deeplab2_kmax.model.semantic_branch import SemanticDecoder, SemanticDecoderSettings
from deeplab2_kmax.model.transformer_decoder import TransformerDecoder, TransformerDecoderSettings
from deeplab2_kmax.protos import config_pb2

__all__ = ["MaskTransformer", "build_model"]

# Smallest image with more than one pixel at stride 32; variables do not depend on the size.
_BUILD_SIZE = 33


def build_model(config: config_pb2.ExperimentOptions) -> MaskTransformer:
    """Builds the network of `config` with all its variables, initialized at random.

    Args:
        config: from `load_config`.

    Raises:
        ConfigError: where the model is of a family or encoder that is not implemented.
    """
    require_supported(config)
    model = _compose(config)
    # Variables are created when the layers see the shape of their input; a symbolic one is enough.
    model(tf.keras.Input([_BUILD_SIZE, _BUILD_SIZE, 3]), training=False)
    return model


def _compose(config: config_pb2.ExperimentOptions) -> MaskTransformer:
    options = config.model_options.max_deeplab
    solver = config.trainer_options.solver_options
    dataset = load_dataset(config.train_dataset_options.dataset)
    normalization = Normalization(solver.batchnorm_momentum, solver.batchnorm_epsilon, solver.use_sync_batchnorm)
    heads = HeadSettings(
        options.pixel_space_head.head_channels,
        options.pixel_space_head.output_channels,
        len(dataset.thing_class_ids) + len(dataset.stuff_class_ids),
    )
    semantic_options = options.auxiliary_semantic_head
    semantic_decoder = None
    if options.use_auxiliary_semantic_decoder:
        semantic_decoder = SemanticDecoder(SemanticDecoderSettings.from_options(config.model_options), normalization)
    return MaskTransformer(
        build_pixel_encoder(config, normalization),
        PixelDecoder(PixelDecoderSettings.from_options(options.pixel_decoder), normalization),
        TransformerDecoder(TransformerDecoderSettings.from_options(options), heads, normalization),
        PredictionHead(heads, normalization, name="prediction_head"),
        SegmentationHead(
            semantic_options.head_channels, semantic_options.output_channels, normalization, name="semantic_head"
        ),
        semantic_decoder,
        options.activate_semantic_skips,
    )
