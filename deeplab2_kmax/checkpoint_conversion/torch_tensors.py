"""Maps the tensors of bytedance/kmax-deeplab to DeepLab2's checkpoint keys: their names, axes and class orders.

`RULES` rewrites a DeepLab2 key such as `encoder/_stage2/_block3/_conv1_bn_act/_batch_norm/gamma` step by step into the
state dict's `backbone.res2.2.conv1.norm.weight`. It starts from keys, not from the attribute names of this package,
because keys never change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from deeplab2_kmax.checkpoints.keys import Replacement
from deeplab2_kmax.datasets.descriptor import DatasetDescriptor

_HEAD = "sem_seg_head.predictor"
_SEMANTIC = f"{_HEAD}._auxiliary_semantic_predictor"


def _counting_from_zero(prefix: str) -> Callable[[re.Match[str]], str]:
    """A replacement by `prefix`, with the first group filled in, and the second group minus one."""
    return lambda match: f"{prefix.format(match[1])}.{int(match[2]) - 1}."


# (pattern, replacement), applied in this order to the key without its last part and with dots in place of slashes.
RULES: list[tuple[str, Replacement]] = [
    # ResNet: in the port, a batch norm is part of its convolution.
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
    # Heads of the decoder layers, and the final one. ("predcitor" is how the port spells it.)
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

# Without a decoder, the port's semantic branch is a torch.nn.Sequential of three parts, which have numbers for names.
_SEQUENCE: list[tuple[str, Replacement]] = [
    (re.escape(f"{_SEMANTIC}.{name}."), f"{_SEMANTIC}.{number}.")
    for number, name in enumerate(("conv_block_0", "conv_block_1", "final_conv"))
]

# Last part of a key -> of the tensor's name.
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

# Last parts of keys of variables that are vectors in PyTorch.
_VECTORS = ("gamma", "beta", "moving_mean", "moving_variance", "bias", "layer_scale")
# Tensors of a state dict that are not weights of the network.
_IGNORED = re.compile(r"\.num_batches_tracked$|^criterion\.|^pixel_(mean|std)$")


def torch_name(key: str, semantic_decoder: bool) -> str:
    """The name in the state dict of the tensor for a variable.

    Args:
        key: the variable's DeepLab2 checkpoint key.
        semantic_decoder: whether the semantic branch has a decoder (ASPP and skip connections).
    """
    *parents, leaf = key.split("/")
    owner = ".".join(parents)
    for pattern, replacement in RULES if semantic_decoder else [*RULES, *_SEQUENCE]:
        owner = re.sub(pattern, replacement, owner)
    return f"{owner}.{_LEAVES.get(leaf, leaf)}"


def is_ignored(name: str) -> bool:
    """Whether the tensor `name` of a state dict is not converted: step counters, loss weights, pixel statistics."""
    return bool(_IGNORED.search(name))


def from_torch(key: str, array: np.ndarray, shape: Sequence[int]) -> np.ndarray | None:
    """Converts an array from PyTorch's layout to TensorFlow's.

    Kernels are [out, in, spatial ...] in PyTorch and [spatial ..., in, out] here; depthwise kernels are
    [channels, 1, h, w] and [h, w, channels, 1]. A kernel of one pixel may have any number of spatial axes in the port.
    Vectors are reshaped, because attention stores some of them per head here, e.g. [2 * 8 * 64] -> [2, 1, 8, 1, 64].

    Args:
        key: the variable's DeepLab2 checkpoint key.
        array: the tensor of the state dict.
        shape: of the variable.

    Returns:
        The array in the shape of the variable, or None if it does not have that shape after the conversion.
    """
    shape = tuple(shape)
    leaf = key.rsplit("/", 1)[-1]
    if leaf in _VECTORS:
        return array.reshape(shape) if array.shape == (math.prod(shape),) else None
    if leaf == "cluster_centers":
        array = array.T[np.newaxis]
    elif leaf == "depthwise_kernel" and array.ndim == 4:
        array = array.transpose(2, 3, 0, 1)
    elif leaf in ("kernel", "qkv_kernel") and array.ndim >= 2:
        array = array.transpose(*range(2, array.ndim), 1, 0)
        if array.shape[-2:] == shape[-2:] and math.prod(array.shape[:-2]) == math.prod(shape[:-2]) == 1:
            array = array.reshape(shape)
    return array if array.shape == shape else None


def class_order(key: str, dataset: DatasetDescriptor) -> list[int] | None:
    """For variables with one channel for each class, the index in the port of each channel here; None for others.

    The port numbers classes by ascending id, without gaps, and puts void last. Here, class logits have things first,
    then stuff, then void; semantic logits are indexed by class id, and ids without a class (0 in COCO) get void.

    Args:
        key: the variable's DeepLab2 checkpoint key.
        dataset: the classes.
    """
    number = {class_id: index for index, class_id in enumerate(sorted(dataset.by_id))}
    void = len(number)
    if "transformer_class_head/" in key:
        return [*(number[class_id] for class_id in dataset.index_to_class_id), void]
    if key.startswith("semantic_last_layer/"):
        return [number.get(class_id, void) for class_id in range(dataset.num_classes)]
    return None
