"""The one map between this package's variables and the keys of DeepLab2's checkpoints.

A variable's path is the chain of public attributes that leads to it from the model, such as
`pixel_encoder/stages/0/2/conv1/norm/gamma`; DeepLab2 calls the same variable
`encoder/_stage2/_block3/_conv1_bn_act/_batch_norm/gamma`.
`RULES` rewrites the first into the second, one level of the model at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Union

import tensorflow as tf

# A replacement as re.sub takes it. (typing.Union, as Python 3.9 does not know `|` outside of annotations.)
Replacement = Union[str, Callable[["re.Match[str]"], str]]

_PREDICTOR = r"(?:prediction_head|predictor)"

# (pattern, replacement). The order matters: each rule sees what those above it made of the path.
RULES: list[tuple[str, Replacement]] = [
    # MaX-DeepLab's skeleton: DeepLab2's encoder is all of it except the heads.
    (r"^pixel_encoder/first_stage/", "encoder/_stage1/"),
    (r"^pixel_encoder/stages/(\d+)/(?=blocks/|layers/)", lambda m: f"encoder/_stage{int(m[1]) + 2}/"),
    (r"^extra_stage0/", "encoder/_stage5_extra/"),
    (r"^extra_stage(\d+)/", r"encoder/_decoder_stage\1_extra/"),
    (r"^backbone_decoder/step(\d+)/", r"encoder/_decoder_stage\1/"),
    (r"^extra_decoder/step(\d+)/", r"encoder/_decoder_stage\1_extra/"),
    (r"^(encoder/_decoder_stage\w+)/stage/", r"\1/"),
    (r"^(encoder/_decoder_stage\w+)/fusion/strided/", r"\1_resized_fuse/_strided_conv_bn1/"),
    (
        r"^(encoder/_decoder_stage\w+)/fusion/projections/(\d+)/",
        lambda m: f"{m[1]}_resized_fuse/_resized_conv_bn{int(m[2]) + 1}/",
    ),
    (r"^(encoder/_\w+)/blocks/(\d+)/", lambda m: f"{m[1]}/_block{int(m[2]) + 1}/"),
    (r"^(encoder/_\w+)/layers/(\d+)/", lambda m: f"{m[1]}/_block{int(m[2]) + 1}_transformer/"),
    (r"^(class|mask)_embedding/", r"encoder/_\1_feature_extra/"),
    (r"^cluster_centers$", "encoder/memory_feature"),
    # Pixel encoder: ResNet
    (r"^pixel_encoder/stages/(\d+)/(\d+)/", lambda m: f"encoder/_stage{int(m[1]) + 2}/_block{int(m[2]) + 1}/"),
    (r"^pixel_encoder/stem/", "encoder/_stem/"),
    # Pixel encoder: ConvNeXt
    (r"^pixel_encoder/patches/conv/", "encoder/downsample_layers/0/layer_with_weights-0/"),
    (r"^pixel_encoder/patches/layer_norm/", "encoder/downsample_layers/0/layer_with_weights-1/"),
    (
        r"^pixel_encoder/downsamplings/(\d+)/(layer_norm|conv)/",
        lambda m: f"encoder/downsample_layers/{int(m[1]) + 1}/layer_with_weights-{int(m[2] == 'conv')}/",
    ),
    (r"^pixel_encoder/block_groups/(\d+)/(\d+)/", r"encoder/stages/\1/layer_with_weights-\2/"),
    (r"^(encoder/stages/.*)/depthwise/", r"\1/depthwise_conv/"),
    (r"^(encoder/stages/.*)/expansion/", r"\1/pointwise_conv1/"),
    (r"^(encoder/stages/.*)/projection/", r"\1/pointwise_conv2/"),
    # Pixel encoder: MOAT
    (
        r"^pixel_encoder/moat_stem/(first|norm|second)/",
        lambda m: f"encoder/_stem/layer_with_weights-{('first', 'norm', 'second').index(m[1])}/",
    ),
    (r"^pixel_encoder/moat_stages/(\d+)/(\d+)/(?:convolution/)?(\w+)/", r"encoder/_blocks/\1/\2/_\3/"),
    (r"/_se/(reduce|expand)/", r"/_se/_se_\1/"),
    (r"/_attention/(q|k|v)(?:uery|ey|alue)/", r"/_attention/_\1_proj/"),
    (r"/_attention/projection/", "/_attention/_o_proj/"),
    # Pixel decoder
    (r"^pixel_decoder/stages/(\d+)/(\d+)/", lambda m: f"pixel_decoder/_stages/{m[1]}/_block{int(m[2]) + 1}/"),
    (r"^pixel_decoder/skip_norms/", "pixel_decoder/_backbone_norms/"),
    (r"^pixel_decoder/fusions/(\d+)/coarse/", r"pixel_decoder/_skip_connections/\1/_resized_conv_bn1/"),
    (r"^pixel_decoder/fusions/(\d+)/fine/", r"pixel_decoder/_skip_connections/\1/_resized_conv_bn2/"),
    # Residual blocks
    (r"/conv([12])/", r"/_conv\1_bn_act/"),
    (r"/conv3/", "/_conv3_bn/"),
    (r"/conv_out/", "/_conv2_bn/"),
    (r"/shortcut/", "/_shortcut/"),
    (r"/attention/(height|width)_axis/", r"/_attention/_\1_axis/"),
    (r"/qkv_norm/", "/_batch_norm_qkv/"),
    (r"axis/similarity_norm/", "axis/_batch_norm_similarity/"),
    (r"axis/output_norm/", "axis/_batch_norm_retrieved_output/"),
    (r"/(query|key|value)_positions/", r"/_\1_rpe/"),
    # Transformer decoder
    (r"^transformer_decoder/(class|mask)_embedding/", r"transformer_decoder/_\1_embedding_projection/"),
    (r"^transformer_decoder/layers/(\d+)/", r"transformer_decoder/_kmax_decoder/\1/_block1_transformer/"),
    (r"/center_projection/", "/_memory_conv1_bn_act/"),
    (r"/pixel_projection/", "/_pixel_conv1_bn_act/"),
    (r"/feed_forward/0/", "/_memory_ffn_conv1_bn_act/"),
    (r"/feed_forward/1/", "/_memory_ffn_conv2_bn/"),
    # Update rules
    (r"/rule/center_qkv/", "/_memory_qkv_conv_bn/"),
    (r"/rule/pixel_(qkv|kv)/", r"/_pixel_\1_conv_bn/"),
    (r"/rule/pixel_value/", "/_pixel_v_conv_bn/"),
    (r"/rule/center_attention/projection/", "/_memory_conv3_bn/"),
    (r"/rule/pixel_attention/projection/", "/_pixel_conv3_bn/"),
    (r"/rule/center_attention/", "/_memory_attention/"),
    (r"/rule/pixel_attention/", "/_pixel_attention/"),
    (r"_attention/similarity_norm/", "_attention/_batch_norm_similarity/"),
    (r"_attention/value_norm/", "_attention/_batch_norm_retrieved_value/"),
    (r"/rule/affinity_norm/", "/_cluster_batch_norm_similarity/"),
    (r"/rule/soft_cluster_norm/", "/_cluster_memory_batch_norm_retrieved_value/"),
    (r"/rule/soft_cluster_projection/", "/_cluster_memory_conv3_bn/"),
    (r"/rule/pixel_update/coordinate_conv/", "/_pixel_coordinate_conv/_conv/"),
    (r"/rule/pixel_update/value_norm/", "/_cluster_pixel_batch_norm_retrieved_value/"),
    (r"/rule/pixel_update/projection/", "/_cluster_pixel_conv3_bn/"),
    (r"/rule/reference_boxes/hidden/", "/_memory_reference_conv1_bn_act/"),
    (r"/rule/reference_boxes/", "/_memory_reference_conv2/_conv/"),
    (r"/rule/reference_bias$", "/_reference_bias"),
    (r"/rule/cluster_norm/", "/_kmeans_memory_batch_norm_retrieved_value/"),
    (r"/rule/cluster_projection/", "/_kmeans_memory_conv3_bn/"),
    # Prediction heads: DeepLab2 keeps those of the decoder layers as private attributes of the layers, and the final
    # one as attributes of the model itself.
    (_PREDICTOR + r"/pixel_head/", "predictor/pixel_space_head/"),
    (_PREDICTOR + r"/pixel_norm/", "predictor/pixel_space_feature_batch_norm/"),
    (_PREDICTOR + r"/mask_head/", "predictor/transformer_mask_head/"),
    (_PREDICTOR + r"/mask_norm/", "predictor/pixel_space_mask_batch_norm/"),
    (_PREDICTOR + r"/class_head/", "predictor/transformer_class_head/_conv/"),
    (r"(?<=.)/predictor/", "/_auxiliary_clustering_predictor/_"),
    (r"^predictor/", ""),
    (r"pixel_space_head/conv/", "pixel_space_head/conv_block/_conv1_bn_act/"),
    (r"pixel_space_head/final/", "pixel_space_head/final_conv/"),
    # Semantic branch
    (r"^semantic_head/conv/", "semantic_head_without_last_layer/_conv1_bn_act/"),
    (r"^semantic_head/final/", "semantic_last_layer/"),
    (r"^semantic_decoder/skips/(\d+)/", lambda m: f"semantic_decoder/_low_level_conv{int(m[1]) + 1}/"),
    (
        r"^semantic_decoder/fusions/(\d+)/",
        lambda m: f"semantic_decoder/_fusion_conv{int(m[1]) + 1}/_conv1_bn_act/",
    ),
    (r"^semantic_decoder/pyramid/pointwise/", "semantic_decoder/_aspp/_conv_bn_act/"),
    (
        r"^semantic_decoder/pyramid/dilated/(\d+)/",
        lambda m: f"semantic_decoder/_aspp/_aspp_conv{int(m[1]) + 1}/_conv_bn_act/",
    ),
    (r"^semantic_decoder/pyramid/pooled/", "semantic_decoder/_aspp/_aspp_pool/_conv_bn_act/"),
    (r"^semantic_decoder/pyramid/projection/", "semantic_decoder/_aspp/_proj_conv_bn_act/"),
    # Convolutions with batch norm
    (r"/depthwise/depthwise_kernel$", "/_depthwise/_depthwise_conv/depthwise_kernel"),
    (r"/depthwise/norm/", "/_depthwise/_batch_norm/"),
    (r"/pointwise/", "/_pointwise/"),
    (r"/norm/(?=\w+$)", "/_batch_norm/"),
    # Layer norms have another attribute name than batch norms, so that the rule above does not touch them.
    (r"/layer_norm/(?=\w+$)", "/norm/"),
    (
        r"(_bn|_bn_act|_stem|_shortcut|_pointwise|_head|_projection|_bn\d|_level_conv\d|_feature_extra)/kernel$",
        r"\1/_conv/kernel",
    ),
]

_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in RULES]


def checkpoint_key(path: str) -> str:
    """DeepLab2's checkpoint key of a variable.

    Args:
        path: the chain of public attributes from the model to the variable, joined by slashes.
    """
    for pattern, replacement in _COMPILED:
        path = pattern.sub(replacement, path)
    return path


def checkpoint_variables(model: tf.keras.Model) -> dict[str, tf.Variable]:
    """All variables of `model` by their DeepLab2 checkpoint keys.

    Raises:
        AssertionError: two variables got the same key, a mistake in `RULES`.
    """
    variables: dict[str, tf.Variable] = {}
    for path, variable in _variables(model):
        key = checkpoint_key(path)
        if key in variables:
            raise AssertionError(f"two variables have the checkpoint key {key}; the second one is {path}")
        variables[key] = variable
    return variables


def _variables(owner: object, prefix: str = "") -> Iterator[tuple[str, tf.Variable]]:
    """(path, variable) for each variable that is reached from `owner` through public attributes and lists."""
    if isinstance(owner, tf.Variable):
        yield prefix, owner
    elif isinstance(owner, tf.keras.layers.Layer):
        # Private attributes are Keras' bookkeeping, in which every variable is listed once more.
        for name, value in vars(owner).items():
            if not name.startswith("_"):
                yield from _variables(value, f"{prefix}/{name}" if prefix else name)
    elif isinstance(owner, (list, tuple)):
        for index, value in enumerate(owner):
            yield from _variables(value, f"{prefix}/{index}")
