"""Encoder weights from files of `tf.keras.applications` (ConvNeXt and ResNet50), `.h5`, with or without their top.

Keras' networks take pictures in another scale and order of channels than kMaX, which gives its encoder RGB / 127.5 - 1;
the first convolution is rewritten for that. What is left are the zeros that convolutions see around a picture: they
are a picture of Keras' mean color there and of mid-grey here.

ResNet50 differs in two more ways. Its convolutions have biases, which are taken off the moving means of the batch norms
behind them. Its batch norms have epsilon 1.001e-5; what our epsilon changes in inference is made up for in gamma. It
strides in the first 1x1 convolution of a stage and max-pools after the stem, where DeepLab2's ResNet strides in the
3x3 convolution and has no max-pool: the weights are good to start from, but the features differ.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import h5py
import numpy as np

from deeplab2_kmax.errors import CheckpointError
from deeplab2_kmax.pretrained_weights.stored import StoredWeight, StoredWeights

# Per channel of RGB in 0 .. 255: what ConvNeXt subtracts and divides by, and what ResNet50 subtracts.
_CONVNEXT_MEAN = np.array([0.485, 0.456, 0.406]) * 255.0
_CONVNEXT_STDDEV = np.array([0.229, 0.224, 0.225]) * 255.0
_RESNET_MEAN = np.array([123.68, 116.779, 103.939])
_RESNET_EPSILON = 1.001e-5
_HALF_RANGE = 127.5

_CONVNEXT_LAYERS = (
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
_RESNET_CONVS = {"0": "_shortcut", "1": "_conv1_bn_act", "2": "_conv2_bn_act", "3": "_conv3_bn"}


def read_keras_application(path: str, kind: str, epsilon: float) -> StoredWeights:
    """What the file at `path` holds, in the terms of an encoder.

    Args:
        path: an HDF5 file written by `save_weights` or `save` of a Keras application.
        kind: of the encoder, "convnext" or "resnet".
        epsilon: of the encoder's batch norms.

    Returns:
        All weights, those of the encoder under keys that begin with "encoder/".

    Raises:
        CheckpointError: the file cannot be read, or there is no Keras application of that kind.
    """
    if kind not in _CONVERTERS:
        raise CheckpointError(
            f"{path}: Keras application weights (.h5) are read for encoders of the kinds {', '.join(_CONVERTERS)};"
            f" this one is of the kind {kind}"
        )
    layers = _layers(path)
    return _CONVERTERS[kind](layers, epsilon)


def _layers(path: str) -> dict[str, dict[str, StoredWeight]]:
    """{layer: {weight: array}} of an HDF5 file, whatever groups lie around the layers."""
    layers: dict[str, dict[str, StoredWeight]] = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and "/" in name and not name.startswith("optimizer_weights"):
            *_, layer, weight = name.split("/")
            read = functools.partial(_read, path, name)
            layers.setdefault(layer, {})[weight.split(":")[0]] = StoredWeight(tuple(item.shape), read)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise CheckpointError(f"{path}: not a readable HDF5 file: {error}") from error
    return layers


def _read(path: str, name: str) -> np.ndarray:
    try:
        with h5py.File(path, "r") as file:
            return np.asarray(file[name], np.float32)
    except (OSError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot read {name}: {error}") from error


def _changed(weight: StoredWeight, change: Callable[[np.ndarray], np.ndarray]) -> StoredWeight:
    """`weight` with `change`, which keeps the shape, applied when it is read."""
    return StoredWeight(weight.shape, lambda: change(weight.read().astype(np.float64)).astype(np.float32))


def _convnext(layers, epsilon: float) -> StoredWeights:
    del epsilon  # There are no batch norms.
    weights: StoredWeights = {}
    for layer, stored in layers.items():
        place = _convnext_place(layer)
        if place is None:
            weights.update({f"{layer}/{name}": weight for name, weight in stored.items()})
        elif layer.endswith("_stem_conv"):
            weights.update(_for_our_images(place, stored, _CONVNEXT_MEAN, 1.0 / _CONVNEXT_STDDEV))
        elif layer.endswith("_layer_scale"):
            scale = next(iter(stored.values()))
            shape = (1, 1, 1, *scale.shape)
            weights[f"{place}/layer_scale"] = StoredWeight(shape, lambda s=scale: s.read().reshape(1, 1, 1, -1))
        else:
            weights.update({f"{place}/{name}": weight for name, weight in stored.items()})
    return weights


def _convnext_place(layer: str) -> str | None:
    for pattern, place in _CONVNEXT_LAYERS:
        if match := re.search(pattern, layer):
            return "encoder/" + (place(match) if callable(place) else match.expand(place))
    return None


def _for_our_images(place: str, conv: dict[str, StoredWeight], mean, factor, flips=False) -> StoredWeights:
    """A convolution of (image - mean) * factor as one of image / 127.5 - 1; `flips`: of BGR as one of RGB."""

    def in_order(kernel):
        return kernel[:, :, ::-1] if flips else kernel

    def rescaled(kernel):
        return in_order(kernel) * (_HALF_RANGE * factor * np.ones(3))[:, np.newaxis]

    def shifted(bias):
        offset = (_HALF_RANGE - mean) * factor
        return bias + np.einsum("hwcd,c->d", in_order(conv["kernel"].read().astype(np.float64)), offset)

    return {
        f"{place}/kernel": _changed(conv["kernel"], rescaled),
        f"{place}/bias": _changed(conv["bias"], shifted),
    }


def _resnet(layers, epsilon: float) -> StoredWeights:
    weights: StoredWeights = {}
    for layer, stored in layers.items():
        match = re.fullmatch(r"conv1_(conv|bn)|conv(\d)_block(\d+)_(\d)_(conv|bn)", layer)
        if match is None:
            weights.update({f"{layer}/{name}": weight for name, weight in stored.items()})
        elif layer.endswith("_conv"):
            place = f"encoder/_stage{match[2]}/_block{match[3]}/{_RESNET_CONVS.get(match[4])}"
            if match[2] is None:
                place = "encoder/_stem"
                stored = _for_our_images("stem", stored, _RESNET_MEAN, 1.0, flips=True)
                stored = {name.rpartition("/")[2]: weight for name, weight in stored.items()}
            norm = layers.get(f"{layer[: -len('_conv')]}_bn", {})
            weights.update(_conv_and_norm(place, stored, norm, epsilon))
    return weights


def _conv_and_norm(place: str, conv: dict[str, StoredWeight], norm: dict[str, StoredWeight], epsilon) -> StoredWeights:
    """A convolution with bias and its batch norm as a convolution without and a batch norm with our epsilon."""

    def gamma(value):
        variance = norm["moving_variance"].read().astype(np.float64)
        return value * np.sqrt((variance + epsilon) / (variance + _RESNET_EPSILON))

    def mean(value):
        return value - conv["bias"].read()

    weights = {f"{place}/_conv/kernel": conv["kernel"]}
    if {"gamma", "beta", "moving_mean", "moving_variance"} <= norm.keys() and "bias" in conv:
        weights[f"{place}/_batch_norm/gamma"] = _changed(norm["gamma"], gamma)
        weights[f"{place}/_batch_norm/beta"] = norm["beta"]
        weights[f"{place}/_batch_norm/moving_mean"] = _changed(norm["moving_mean"], mean)
        weights[f"{place}/_batch_norm/moving_variance"] = norm["moving_variance"]
    return weights


_CONVERTERS = {"convnext": _convnext, "resnet": _resnet}
