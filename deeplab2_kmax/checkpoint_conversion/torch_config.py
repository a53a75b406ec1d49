"""The config fields with which our network computes what the PyTorch port computes."""

from __future__ import annotations

from deeplab2_kmax.config import ConfigError, check_config
from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.protos import config_pb2


def as_in_pytorch(config: config_pb2.ExperimentOptions) -> config_pb2.ExperimentOptions:
    """A copy of `config`, from `load_config`, with the choices of bytedance/kmax-deeplab in place of DeepLab2's.

    Raises ConfigError where that code has no such encoder.
    """
    ported = config_pb2.ExperimentOptions()
    ported.CopyFrom(config)
    backbone, max_deeplab = ported.model_options.backbone, ported.model_options.max_deeplab
    max_deeplab.pixel_decoder.bottleneck_atrous_rate = 1
    kind = ENCODERS[backbone.name].kind
    if kind == "resnet":
        _as_pytorch_resnet(backbone, max_deeplab)
    elif kind == "convnext":
        max_deeplab.activate_semantic_skips = False
    else:
        raise ConfigError(
            f"model_options.backbone.name: bytedance/kmax-deeplab has ResNet-50 and ConvNeXt, no {backbone.name!r}"
        )
    check_config(ported, "config of the converted checkpoint")
    return ported


def _as_pytorch_resnet(backbone, max_deeplab) -> None:
    backbone.stem_max_pool = True
    backbone.activated_features = True
    if len(max_deeplab.pixel_decoder.filters) == 5:
        # The max-pool brings the stem to the stride of stage 2, and the port takes in the stem first.
        max_deeplab.pixel_decoder.encoder_features[:] = ["stage5", "stage4", "stage3", "stage1", "stage2"]
        max_deeplab.high_resolution_output_stride = 4
