"""Pixel encoders: image -> features at strides 2 to 32."""

from __future__ import annotations

import tensorflow as tf

from deeplab2_kmax.config import require_supported
from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.pixel_encoders.axial_resnet import AxialResNet, AxialResNetSettings
from deeplab2_kmax.model.pixel_encoders.convnext import ConvNeXt, ConvNeXtSettings
from deeplab2_kmax.model.pixel_encoders.moat import MOAT, MOATSettings
from deeplab2_kmax.model.pixel_encoders.resnet import ResNet, ResNetSettings
from deeplab2_kmax.protos import config_pb2

# Kind of encoder (see `config.encoders`) -> its layer and the layer's settings.
_KINDS = {
    "axial_resnet": (AxialResNet, AxialResNetSettings),
    "convnext": (ConvNeXt, ConvNeXtSettings),
    "moat": (MOAT, MOATSettings),
    "resnet": (ResNet, ResNetSettings),
}


def build_pixel_encoder(config: config_pb2.ExperimentOptions, normalization: Normalization) -> tf.keras.layers.Layer:
    """The encoder that `config.model_options.backbone` names.

    It maps an image [B, H, W, 3] in [-1, 1] to a dict "stage1" (stride 2) .. "stage5" (stride 32) of features before
    their activation; the layer's attribute `activation` names the function that activates them. Raises ConfigError for
    a name that is not implemented.
    """
    require_supported(config)
    options = config.model_options.backbone
    layer, settings = _KINDS[ENCODERS[options.name].kind]
    return layer(settings.from_options(options), normalization)
