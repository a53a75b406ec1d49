"""Pixel encoders: image -> features at strides 2 to 32.

Each file but one is an encoder with its settings: `resnet.py`, `axial_resnet.py`, `convnext.py`, `moat.py`.
`residual_stages.py` plans the stages of residual networks, for Axial-ResNet and for the encoder of MaX-DeepLab's
skeleton, which is in `model/dual_path`. The depths and widths that names in configs stand for are not here but in the
table in `config/encoders.py`. Start reading at `build_pixel_encoder` and `resnet.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from deeplab2_kmax.config import require_supported
from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.model.layers.normalization import Normalization
from deeplab2_kmax.model.pixel_encoders.axial_resnet import AxialResNet, AxialResNetSettings
from deeplab2_kmax.model.pixel_encoders.convnext import ConvNeXt, ConvNeXtSettings
from deeplab2_kmax.model.pixel_encoders.moat import MOAT, MOATSettings
from deeplab2_kmax.model.pixel_encoders.resnet import ResNet, ResNetSettings
from deeplab2_kmax.protos import config_pb2, model_pb2

# Kind of encoder (see config/encoders.py) -> how to build it.
_KINDS: dict[str, Callable[[model_pb2.ModelOptions.BackboneOptions, Normalization], tf.keras.layers.Layer]] = {
    "axial_resnet": lambda options, norm: AxialResNet(AxialResNetSettings.from_options(options), norm),
    "convnext": lambda options, norm: ConvNeXt(ConvNeXtSettings.from_options(options), norm),
    "moat": lambda options, norm: MOAT(MOATSettings.from_options(options), norm),
    "resnet": lambda options, norm: ResNet(ResNetSettings.from_options(options), norm),
}


def build_pixel_encoder(config: config_pb2.ExperimentOptions, normalization: Normalization) -> tf.keras.layers.Layer:
    """Builds the encoder that `config.model_options.backbone` names.

    Args:
        config: the experiment.
        normalization: settings of the batch norms.

    Returns:
        A layer that maps images [B, H, W, 3] in [-1, 1] to a dict of features [B, h, w, C], "stage1" (stride 2) ..
        "stage5" (stride 32), before their activation. Its attribute `activation` names the function that activates
        them. Exceptions: "stage1" has stride 4 in ConvNeXt and in a ResNet with `stem_max_pool`, and a ResNet with
        `activated_features` returns features after their activation.

    Raises:
        ConfigError: no encoder of that name is implemented.
    """
    require_supported(config)
    options = config.model_options.backbone
    return _KINDS[ENCODERS[options.name].kind](options, normalization)
