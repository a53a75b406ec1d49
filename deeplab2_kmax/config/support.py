"""Which models can be built here, and what messages say of the others: the reason, and how to go on."""

from __future__ import annotations

from collections.abc import Iterator

from deeplab2_kmax.config.encoders import ENCODERS
from deeplab2_kmax.config.named import shipped_names
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.wording import did_you_mean

# Field of the oneof `meta_architecture` -> what papers call it.
_FAMILY_NAMES = {
    "deeplab_v3": "DeepLabV3",
    "deeplab_v3_plus": "DeepLabV3+",
    "panoptic_deeplab": "Panoptic-DeepLab",
    "motion_deeplab": "Motion-DeepLab",
    "vip_deeplab": "ViP-DeepLab",
    "max_deeplab": "MaX-DeepLab",
}
_INDENT = "\n    "
_SUPPORTED = (
    "This package has MaX-DeepLab, CMT-DeepLab and kMaX-DeepLab: a message model_options.max_deeplab with a"
    " backbone.name such as kmax_resnet50 (docs/encoders.md lists all)."
)
_ENCODERS = "It has: " + ", ".join(name for name, encoder in ENCODERS.items() if encoder.listed)
_NEEDS_DEEPLAB2 = "To run this config as it is, DeepLab2 itself is needed: https://github.com/google-research/deeplab2"
# Of an unsupported encoder's name -> of the shipped config that comes nearest; the first that is found counts.
_NEAREST_ENCODER = {
    "max_deeplab_l": "max_l",
    "max_deeplab": "max_s",
    "axial": "kmax_axial_r50",
    "convnext_large": "kmax_convnext_large",
    "convnext_base": "kmax_convnext_base",
    "convnext_small": "kmax_convnext_small",
    "convnext": "kmax_convnext_tiny",
    "swidernet": "kmax_convnext_large",
    "": "kmax_r50",
}


def unsupported_reason(config: config_pb2.ExperimentOptions) -> str | None:
    """Why this config's model cannot be built here and how to go on, a line each; None where it can be built."""
    family = config.model_options.WhichOneof("meta_architecture")
    backbone = config.model_options.backbone.name
    if family is None:
        what = "model_options: expected a meta-architecture, max_deeplab { ... }, got none"
    elif family != "max_deeplab":
        what = f"model_options.{family}: {_FAMILY_NAMES[family]} is not implemented here"
    elif backbone not in ENCODERS:
        meant = did_you_mean(backbone, ENCODERS)
        what = f"model_options.backbone.name: the encoder {backbone!r} is not implemented here{meant}"
    else:
        return None
    return _INDENT.join([what, *_ways_on(config)])


def require_supported(config: config_pb2.ExperimentOptions) -> None:
    """Checks that the config's model can be built here.

    Raises:
        ConfigError: it cannot; says why, what is supported, and how to go on.
    """
    reason = unsupported_reason(config)
    if reason:
        raise ConfigError(reason)


def _ways_on(config: config_pb2.ExperimentOptions) -> Iterator[str]:
    family = config.model_options.WhichOneof("meta_architecture")
    yield _ENCODERS if family == "max_deeplab" else _SUPPORTED
    dataset = config.train_dataset_options.dataset or config.eval_dataset_options.dataset
    if nearest := nearest_config(dataset, config.model_options.backbone.name):
        yield f"The shipped config that comes nearest for {dataset}: --config_file={nearest}"
    else:
        yield (
            f"No shipped config is for {dataset or 'a data set that is not named'}: docs/your_own_dataset.md shows how"
            " to make one (of single images; videos are not supported)"
        )
    if family != "max_deeplab":
        yield _NEEDS_DEEPLAB2


def nearest_config(dataset: str, backbone: str) -> str | None:
    """The shipped experiment for a data set with the encoder that is most like `backbone`; None if it has none.

    Args:
        dataset: a data set's name in configs, such as "coco_panoptic".
        backbone: an encoder's name, of DeepLab2 or of this package.
    """
    folder = dataset.removesuffix("_panoptic")
    names = [name for name in shipped_names() if name.startswith(f"{folder}/") and name.count("/") == 1]
    for word, wanted in _NEAREST_ENCODER.items():
        for name in names:
            if word in backbone and name.startswith(f"{folder}/{wanted}"):
                return name
    return names[0] if names else None
