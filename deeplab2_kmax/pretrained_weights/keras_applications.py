"""Reads encoder weights from `.h5` files of `tf.keras.applications`: ConvNeXt and ResNet50, with or without classifier.

Keras' networks expect another scale and, for ResNet50, another order of channels than kMaX, whose encoder gets
RGB / 127.5 - 1. The first convolution is rewritten to make up for that. One difference remains at the edge of a
picture: the zeros with which convolutions pad it stand for Keras' mean color there and for mid-grey here.

ResNet50 differs in two more ways that are made up for. Its convolutions have biases, which are subtracted from the
moving means of the batch norms behind them. Its batch norms have epsilon 1.001e-5; gamma is scaled such that inference
with another epsilon gives the same result. Two differences remain: it has its strides in the first 1x1 convolution of a
stage, and a max-pool after the stem, where DeepLab2's ResNet has strides in the 3x3 convolution and no max-pool. So its
weights are good to start from, but the features differ.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.keys import Replacement
from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.pretrained_weights.stored import StoredWeight, StoredWeights
from deeplab2_kmax.wording import first_line

# For each channel of RGB in 0..255, what Keras' ConvNeXt subtracts and divides by, and what its ResNet50 subtracts.
_CONVNEXT_MEAN = np.array([0.485, 0.456, 0.406]) * 255.0
_CONVNEXT_STDDEV = np.array([0.229, 0.224, 0.225]) * 255.0
_RESNET_MEAN = np.array([123.68, 116.779, 103.939])
_RESNET_EPSILON = 1.001e-5
_HALF_RANGE = 127.5

# {layer: {weight: array}}, by Keras' names.
_Layers = dict[str, dict[str, StoredWeight]]

# (pattern for the end of Keras' layer name, checkpoint key without "encoder/").
_CONVNEXT_LAYERS: tuple[tuple[str, Replacement], ...] = (
    (r"_stem_conv$", "downsample_layers/0/layer_with_weights-0"),
    (r"_stem_layernorm$", "downsample_layers/0/layer_with_weights-1"),
    (
        r"_downsampling_(layernorm|conv)_(\d)$",
        lambda m: f"downsample_layers/{int(m[2]) + 1}/layer_with_weights-{int(m[1] == 'conv')}",
    ),
    (r"_stage_(\d)_block_(\d+)_depthwise_conv$", r"stages/\1/layer_with_weights-\2/depthwise_conv"),
    (r"_stage_(\d)_block_(\d+)_layernorm$", r"stages/\1/layer_with_weights-\2/norm"),
    (r"_stage_(\d)_block_(\d+)_pointwise_conv_([12])$", r"stages/\1/layer_with_weights-\2/pointwise_conv\3"),
    (r"_stage_(\d)_block_(\d+)_layer_scale$", r"stages/\1/layer_with_weights-\2"),
)
# Number of a convolution in Keras' block -> part of the checkpoint key.
_RESNET_CONVS = {"0": "_shortcut", "1": "_conv1_bn_act", "2": "_conv2_bn_act", "3": "_conv3_bn"}


def read_keras_application(path: str, kind: str, epsilon: float) -> StoredWeights:
    """Lists the weights of a Keras application, converted to those of an encoder of kMaX.

    Args:
        path: local or remote HDF5 file that `save_weights` or `save` of a Keras application wrote.
        kind: of the encoder, "convnext" or "resnet".
        epsilon: of the encoder's batch norms.

    Returns:
        All weights, those of the encoder under keys that begin with "encoder/".

    Raises:
        CheckpointError: the file cannot be read, or Keras has no application of that kind.
    """
    if kind not in _CONVERTERS:
        raise CheckpointError(
            f"{path}: Keras application weights (.h5) are read for encoders of the kinds {', '.join(_CONVERTERS)};"
            f" this one is of the kind {kind}"
        )
    layers = _layers(path)
    return _CONVERTERS[kind](layers, epsilon)


def _layers(path: str) -> _Layers:
    """The layers in an HDF5 file. Older and newer versions of Keras put them into different groups."""
    layers: _Layers = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and "/" in name and not name.startswith("optimizer_weights"):
            *_, layer, weight = name.split("/")
            read = functools.partial(_read, path, name)
            layers.setdefault(layer, {})[weight.split(":")[0]] = StoredWeight(tuple(item.shape), read)

    try:
        with _opened(path) as file:
            file.visititems(visit)
    except OSError as error:
        raise CheckpointError(f"{path}: not a readable HDF5 file: {first_line(error)}") from error
    return layers


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The open HDF5 file."""
    # HDF5 reads local files in pieces; it cannot open remote ones, which are read as a whole.
    with h5py.File(io.BytesIO(files.read_bytes(path)) if files.is_remote(path) else path, "r") as file:
        yield file


def _read(path: str, name: str) -> np.ndarray:
    try:
        with _opened(path) as file:
            return np.asarray(file[name], np.float32)
    except (OSError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot read {name}: {first_line(error)}") from error


def _changed(weight: StoredWeight, change: Callable[[np.ndarray], np.ndarray]) -> StoredWeight:
    """A weight to which `change`, in float64, is applied when it is read; it has to keep the shape."""
    return StoredWeight(weight.shape, lambda: change(weight.read().astype(np.float64)).astype(np.float32))


def _convnext(layers: _Layers, epsilon: float) -> StoredWeights:
    del epsilon  # There are no batch norms.
    weights: StoredWeights = {}
    for layer, stored in layers.items():
        place = _convnext_place(layer)
        if place is None:
            weights.update({f"{layer}/{name}": weight for name, weight in stored.items()})
        elif layer.endswith("_stem_conv"):
            weights.update(_for_our_images(place, stored, _CONVNEXT_MEAN, 1.0 / _CONVNEXT_STDDEV))
        elif layer.endswith("_layer_scale"):
            weights[f"{place}/layer_scale"] = _as_map(next(iter(stored.values())))
        else:
            weights.update({f"{place}/{name}": weight for name, weight in stored.items()})
    return weights


def _as_map(scale: StoredWeight) -> StoredWeight:
    """A layer scale [C] as [1, 1, 1, C]."""
    return StoredWeight((1, 1, 1, *scale.shape), lambda: scale.read().reshape(1, 1, 1, -1))


def _convnext_place(layer: str) -> str | None:
    """The checkpoint key of a layer of ConvNeXt; None for one that the encoder lacks, such as the classifier."""
    for pattern, place in _CONVNEXT_LAYERS:
        if match := re.search(pattern, layer):
            return "encoder/" + (place(match) if callable(place) else match.expand(place))
    return None


def _for_our_images(
    place: str, conv: dict[str, StoredWeight], mean: np.ndarray, factor: np.ndarray | float, flips: bool = False
) -> StoredWeights:
    """Rewrites a convolution for pictures that are scaled as in kMaX.

    Args:
        place: checkpoint key of the convolution.
        conv: its weights, for pictures scaled to (image - mean) * factor; the result is for image / 127.5 - 1.
        mean: of each channel of RGB.
        factor: of each channel of RGB, or of all.
        flips: whether the convolution takes BGR; the result takes RGB.
    """
    # With x = image / 127.5 - 1, (image - mean) * factor = 127.5 * factor * x + (127.5 - mean) * factor: the first term
    # scales the kernel, the second one adds to the bias.

    def in_order(kernel: np.ndarray) -> np.ndarray:
        return kernel[:, :, ::-1] if flips else kernel

    def rescaled(kernel: np.ndarray) -> np.ndarray:
        return in_order(kernel) * (_HALF_RANGE * factor * np.ones(3))[:, np.newaxis]

    def shifted(bias: np.ndarray) -> np.ndarray:
        offset = (_HALF_RANGE - mean) * factor
        return bias + np.einsum("hwcd,c->d", in_order(conv["kernel"].read().astype(np.float64)), offset)

    return {
        f"{place}/kernel": _changed(conv["kernel"], rescaled),
        f"{place}/bias": _changed(conv["bias"], shifted),
    }


def _resnet(layers: _Layers, epsilon: float) -> StoredWeights:
    weights: StoredWeights = {}
    for layer, stored in layers.items():
        match = re.fullmatch(r"conv1_(conv|bn)|conv(\d)_block(\d+)_(\d)_(conv|bn)", layer)
        if match is None:
            weights.update({f"{layer}/{name}": weight for name, weight in stored.items()})
        elif layer.endswith("_conv"):
            place = f"encoder/_stage{match[2]}/_block{match[3]}/{_RESNET_CONVS.get(match[4])}"
            if match[2] is None:  # The stem.
                place = "encoder/_stem"
                stored = _for_our_images("stem", stored, _RESNET_MEAN, 1.0, flips=True)
                stored = {name.rpartition("/")[2]: weight for name, weight in stored.items()}
            norm = layers.get(f"{layer[: -len('_conv')]}_bn", {})
            weights.update(_conv_and_norm(place, stored, norm, epsilon))
    return weights


def _conv_and_norm(
    place: str, conv: dict[str, StoredWeight], norm: dict[str, StoredWeight], epsilon: float
) -> StoredWeights:
    """Moves the bias of a convolution and Keras' epsilon into the weights of the batch norm behind it."""

    def gamma(value: np.ndarray) -> np.ndarray:
        variance = norm["moving_variance"].read().astype(np.float64)
        return value * np.sqrt((variance + epsilon) / (variance + _RESNET_EPSILON))

    def mean(value: np.ndarray) -> np.ndarray:
        return value - conv["bias"].read()

    weights = {f"{place}/_conv/kernel": conv["kernel"]}
    if {"gamma", "beta", "moving_mean", "moving_variance"} <= norm.keys() and "bias" in conv:
        weights[f"{place}/_batch_norm/gamma"] = _changed(norm["gamma"], gamma)
        weights[f"{place}/_batch_norm/beta"] = norm["beta"]
        weights[f"{place}/_batch_norm/moving_mean"] = _changed(norm["moving_mean"], mean)
        weights[f"{place}/_batch_norm/moving_variance"] = norm["moving_variance"]
    return weights


_CONVERTERS = {"convnext": _convnext, "resnet": _resnet}
