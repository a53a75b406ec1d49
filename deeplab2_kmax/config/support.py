"""Which models can be built here, and what messages say of the others."""

from __future__ import annotations

from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2

# Field of the oneof `meta_architecture` -> what papers call it.
_FAMILY_NAMES = {
    "deeplab_v3": "DeepLabV3",
    "deeplab_v3_plus": "DeepLabV3+",
    "panoptic_deeplab": "Panoptic-DeepLab",
    "motion_deeplab": "Motion-DeepLab",
    "vip_deeplab": "ViP-DeepLab",
    "max_deeplab": "MaX-DeepLab",
}
_SUPPORTED = "supported are max_deeplab models with backbone.name one of: " + ", ".join(
    name for name, encoder in ENCODERS.items() if encoder.listed
)


def unsupported_reason(config: config_pb2.ExperimentOptions) -> str | None:
    """Why this config's model cannot be built here, or None where it can."""
    family = config.model_options.WhichOneof("meta_architecture")
    backbone = config.model_options.backbone.name
    if family is None:
        return f"model_options: expected a meta-architecture, got none; {_SUPPORTED}"
    if family != "max_deeplab":
        return f"model_options.{family}: {_FAMILY_NAMES[family]} is not implemented; {_SUPPORTED}"
    if backbone not in ENCODERS:
        return f"model_options.backbone.name: {backbone!r} is not implemented; {_SUPPORTED}"
    return None


def require_supported(config: config_pb2.ExperimentOptions) -> None:
    """Checks that the config's model can be built here.

    Raises:
        ConfigError: it cannot; says why, and what is supported.
    """
    reason = unsupported_reason(config)
    if reason:
        raise ConfigError(reason)
