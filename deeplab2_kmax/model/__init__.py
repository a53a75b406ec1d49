"""The network, from an experiment config: `build_model(config)`.

There are two skeletons. `mask_transformer.py` is kMaX-DeepLab's: a pixel encoder (`pixel_encoders/`), a pixel decoder
and a transformer decoder (`transformer_decoder/`) that take turns, and heads. `dual_path/` is MaX-DeepLab's, where the
decoder layers stand between the blocks of the encoder. Both share `layers/`, the heads, the semantic branch and the
names of the outputs. This file reads the config and puts the parts together, with `build_pixel_encoder` for the choice
of the encoder; the parts take frozen settings, each made by its classmethod `from_options`, and can be built without a
config.

`frozen.py` makes weights constants, for networks that only predict, and `averaged_passes.py` runs such a network at
several scales and on mirror images. `parameter_counts.py` counts the weights of a config's network, `multiply_adds.py`
what it computes, and `summary.py` prints the weights of each part. Losses, post-processing and the reading of
checkpoints live in other folders (`losses/`, `postprocessing/`, `checkpoints/`).

Start reading at `mask_transformer.py`.
"""

from __future__ import annotations

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

# Of all heads and of the semantic branch on the kMaX skeleton.
_KMAX_ACTIVATION = "gelu"
# Side of the image that the model is built on: the smallest with more than one pixel at stride 32. The shapes of the
# variables do not depend on it.
_BUILD_SIZE = 33


def build_model(config: config_pb2.ExperimentOptions) -> tf.keras.Model:
    """Builds the network of `config` with all its variables, randomly initialized.

    Layers compute in `config.model_options.precision`. Variables, inputs and outputs are float32 in every precision.

    Args:
        config: the experiment, from `load_config`.

    Returns:
        A `MaskTransformer` (the kMaX skeleton) or a `DualPathTransformer` (MaX-DeepLab's skeleton).

    Raises:
        ConfigError: the model's family or its encoder is not implemented.
    """
    require_supported(config)
    # The call is inside the block too, because some layers make sublayers when they first see their input.
    with layers_in(config.model_options.precision):
        model = _compose(config)
        # Layers create their variables when they see the shape of their input. A symbolic input suffices, so nothing
        # is computed.
        model(tf.keras.Input([_BUILD_SIZE, _BUILD_SIZE, 3], dtype="float32"), training=False)
    if config.model_options.recompute_blocks:
        recompute_blocks(model)
    return model


def _compose(config: config_pb2.ExperimentOptions) -> tf.keras.Model:
    normalization = Normalization.from_options(config.trainer_options.solver_options)
    own_skeleton = ENCODERS[config.model_options.backbone.name].has_own_skeleton
    return (_compose_dual_path if own_skeleton else _compose_kmax)(config, normalization)


def _compose_kmax(config: config_pb2.ExperimentOptions, normalization: Normalization) -> MaskTransformer:
    options = config.model_options.max_deeplab
    heads = HeadSettings.from_options(options.pixel_space_head, _num_classes(config), _KMAX_ACTIVATION)
    return MaskTransformer(
        build_pixel_encoder(config, normalization),
        PixelDecoder(PixelDecoderSettings.from_options(options.pixel_decoder), normalization),
        TransformerDecoder(TransformerDecoderSettings.from_options(options), heads, normalization),
        PredictionHead(heads, normalization, name="prediction_head"),
        *_semantic_branch(config.model_options, normalization, _KMAX_ACTIVATION),
        options.activate_semantic_skips,
    )


def _compose_dual_path(config: config_pb2.ExperimentOptions, normalization: Normalization) -> DualPathTransformer:
    head = config.model_options.max_deeplab.pixel_space_head
    return DualPathTransformer(
        DualPathSettings.from_options(config.model_options),
        HeadSettings.from_options(head, _num_classes(config), DUAL_PATH_ACTIVATION),
        normalization,
        *_semantic_branch(config.model_options, normalization, DUAL_PATH_ACTIVATION),
    )


def _num_classes(config: config_pb2.ExperimentOptions) -> int:
    """Number of thing and stuff classes of the data set; void is not counted."""
    dataset = load_dataset(config.train_dataset_options.dataset)
    return len(dataset.thing_class_ids) + len(dataset.stuff_class_ids)


def _semantic_branch(
    options: model_pb2.ModelOptions, normalization: Normalization, activation: str
) -> tuple[SegmentationHead, SemanticDecoder | None]:
    """The head of the semantic branch, and the decoder before it where there is one."""
    head = options.max_deeplab.auxiliary_semantic_head
    semantic_head = SegmentationHead(
        head.head_channels, head.output_channels, normalization, activation, name="semantic_head"
    )
    # With MaX-DeepLab's extra stacks the head gets features of the mask stride already. As in DeepLab2, there is no
    # decoder then, whatever the config says.
    if not options.max_deeplab.use_auxiliary_semantic_decoder or options.backbone.extra_decoder_stacks:
        return semantic_head, None
    settings = SemanticDecoderSettings.from_options(options, activation)
    return semantic_head, SemanticDecoder(settings, normalization)
