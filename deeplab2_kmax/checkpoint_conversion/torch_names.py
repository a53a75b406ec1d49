"""Names of bytedance/kmax-deeplab's tensors for the keys of DeepLab2's checkpoints.

`RULES` rewrites a DeepLab2 key such as `encoder/_stage2/_block3/_conv1_bn_act/_batch_norm/gamma` step by step into the
state dict's `backbone.res2.2.conv1.norm.weight`. It starts from keys, not from our attribute names, because the keys
never change.
"""

from __future__ import annotations

import re

_HEAD = "sem_seg_head.predictor"
_SEMANTIC = f"{_HEAD}._auxiliary_semantic_predictor"


def _counting_from_zero(prefix: str):
    """Replacement that puts `prefix`, filled with the first group, before the second group less one."""
    return lambda match: f"{prefix.format(match[1])}.{int(match[2]) - 1}."


# (pattern, replacement as re.sub takes it); applied in order, to the key with dots for slashes and without its leaf.
RULES = [
    # ResNet: the batch norm belongs to the convolution.
    (r"^encoder\._stem\._conv$", "backbone.stem.conv1"),
    (r"^encoder\._stem\._batch_norm$", "backbone.stem.conv1.norm"),
    (r"^encoder\._stage(\d)\._block(\d+)\.", _counting_from_zero("backbone.res{}")),
    (r"^(backbone\.res.*)\._(conv\d|shortcut)\w*\._conv$", r"\1.\2"),
    (r"^(backbone\.res.*)\._(conv\d|shortcut)\w*\._batch_norm$", r"\1.\2.norm"),
    # ConvNeXt
    (r"^encoder\.(downsample_layers|stages)\.(\d)\.layer_with_weights-", r"backbone.\1.\2."),
    (r"^(backbone.*)\.depthwise_conv$", r"\1.dwconv"),
    (r"^(backbone.*)\.pointwise_conv", r"\1.pwconv"),
    # Pixel decoder
    (r"^pixel_decoder\._backbone_norms\.", "sem_seg_head.pixel_decoder._in_norms."),
    (r"^pixel_decoder\._skip_connections\.", "sem_seg_head.pixel_decoder._resized_fuses."),
    (r"\._resized_conv_bn1\.", "._conv_bn_low."),
    (r"\._resized_conv_bn2\.", "._conv_bn_high."),
    (
        r"^pixel_decoder\._stages\.(\d)\._block(\d+)\.",
        _counting_from_zero("sem_seg_head.pixel_decoder._stages.{}._blocks"),
    ),
    (r"_rpe$", "_rpe._embeddings"),
    # Transformer decoder
    (r"^transformer_decoder\._kmax_decoder\.(\d+)\._block1_transformer\.", rf"{_HEAD}._kmax_transformer_layers.\1."),
    (r"^transformer_decoder\b", _HEAD),
    (r"\._kmeans_memory_", "._kmeans_query_"),
    (r"\._memory_attention\.", "._query_self_attention."),
    (r"\._memory_", "._query_"),
    # Heads of the layers, and the final one ("predcitor" is the port's spelling)
    (r"\._auxiliary_clustering_predictor\.", "._predcitor."),
    (r"^(pixel_space_|transformer_mask_head|transformer_class_head)", rf"{_HEAD}._predcitor._\1"),
    (r"\._pixel_space_head\.conv_block\._conv1_bn_act\._depthwise\.", "._pixel_space_head_conv0bnact."),
    (r"\._pixel_space_head\.conv_block\._conv1_bn_act\._pointwise\.", "._pixel_space_head_conv1bnact."),
    (r"\._pixel_space_head\.final_conv$", "._pixel_space_head_last_convbn.conv"),
    (r"\._pixel_space_feature_batch_norm$", "._pixel_space_head_last_convbn.norm"),
    # Semantic branch
    (r"^semantic_decoder\._aspp\._conv_bn_act\.", f"{_SEMANTIC}._aspp._aspp_conv0."),
    (r"^semantic_decoder\._aspp\.(_aspp_\w+)\._conv_bn_act\.", rf"{_SEMANTIC}._aspp.\1."),
    (r"^semantic_decoder\._aspp\._proj_", f"{_SEMANTIC}._aspp._proj_"),
    (r"^semantic_decoder\._low_level_conv1\.", f"{_SEMANTIC}._low_level_projection_os8."),
    (r"^semantic_decoder\._low_level_conv2\.", f"{_SEMANTIC}._low_level_projection_os4."),
    (r"^semantic_decoder\._fusion_conv1\._conv1_bn_act\.", f"{_SEMANTIC}._low_level_fusion_os8."),
    (r"^semantic_decoder\._fusion_conv2\._conv1_bn_act\.", f"{_SEMANTIC}._low_level_fusion_os4."),
    (r"(_low_level_fusion_os\d)\._depthwise\.", r"\1_conv0_bn_act."),
    (r"(_low_level_fusion_os\d)\._pointwise\.", r"\1_conv1_bn_act."),
    (r"^semantic_head_without_last_layer\._conv1_bn_act\._depthwise\.", f"{_SEMANTIC}.conv_block_0."),
    (r"^semantic_head_without_last_layer\._conv1_bn_act\._pointwise\.", f"{_SEMANTIC}.conv_block_1."),
    (r"^semantic_last_layer$", f"{_SEMANTIC}.final_conv.conv"),
    # Convolutions with batch norm
    (r"\.(_conv|_depthwise_conv)$", ".conv"),
    (r"\._batch_norm$", ".norm"),
]

# Without a decoder the semantic branch is a nameless sequence of three.
_SEQUENCE = [
    (re.escape(f"{_SEMANTIC}.{name}."), f"{_SEMANTIC}.{number}.")
    for number, name in enumerate(("conv_block_0", "conv_block_1", "final_conv"))
]

_LEAVES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "embeddings": "weight",
    "cluster_centers": "_cluster_centers.weight",
    "qkv_kernel": "qkv_transform.conv.weight",
    "layer_scale": "gamma",
}

# Tensors of a state dict that are no weights of the network.
_IGNORED = re.compile(r"\.num_batches_tracked$|^criterion\.|^pixel_(mean|std)$")


def torch_name(key: str, semantic_decoder: bool) -> str:
    """The state-dict name of the variable with DeepLab2 checkpoint key `key`.

    Args:
        key: as `checkpoint_key` gives it.
        semantic_decoder: whether the semantic branch has a decoder (ASPP and skips).
    """
    *parents, leaf = key.split("/")
    owner = ".".join(parents)
    for pattern, replacement in RULES if semantic_decoder else [*RULES, *_SEQUENCE]:
        owner = re.sub(pattern, replacement, owner)
    return f"{owner}.{_LEAVES.get(leaf, leaf)}"


def is_ignored(name: str) -> bool:
    """Whether the tensor `name` of a state dict is left out: step counters, loss weights, pixel statistics."""
    return bool(_IGNORED.search(name))
