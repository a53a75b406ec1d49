"""Axes and class orders: PyTorch's arrays as our variables have them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from deeplab2_kmax.datasets.descriptor import DatasetDescriptor

_VECTORS = ("gamma", "beta", "moving_mean", "moving_variance", "bias", "layer_scale")


def from_torch(key: str, array: np.ndarray, shape: Sequence[int]) -> np.ndarray | None:
    """`array` in the layout of the variable with DeepLab2 key `key`, or None where it does not have `shape` then.

    PyTorch's kernels are [out, in, spatial ...], ours [spatial ..., in, out]; depthwise ones [channels, 1, h, w] and
    [h, w, channels, 1]. A kernel over one pixel may be stored with any number of spatial axes. Vectors become what
    attention stores per head, e.g. [2 * 8 * 64] -> [2, 1, 8, 1, 64].
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
    """Where each of our channels stands in the port, for the variables that have one channel a class; None for others.

    The port numbers classes by ascending id, without gaps, and void last. Our class logits have things first, then
    stuff, then void; semantic logits are indexed by class id, and channels that are no class (id 0 of COCO) are void.
    """
    number = {class_id: index for index, class_id in enumerate(sorted(dataset.by_id))}
    void = len(number)
    if "transformer_class_head/" in key:
        return [*(number[class_id] for class_id in dataset.index_to_class_id), void]
    if key.startswith("semantic_last_layer/"):
        return [number.get(class_id, void) for class_id in range(dataset.num_classes)]
    return None
