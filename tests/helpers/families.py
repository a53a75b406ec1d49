"""Narrow networks of all architectures."""

import pathlib

from deeplab2_kmax.config import load_config

_CONFIGS = pathlib.Path(__file__).parents[2] / "configs" / "shapes"
_DECODER = "model_options.max_deeplab.transformer_decoder."
_BACKBONE = "model_options.backbone."
# One decoder layer has the ops of all.
_ONE_LAYER = f"{_DECODER}num_blocks=0,0,1"
# Name -> (config of `shapes`, overrides).
FAMILIES = {
    "kmax_resnet50": ("kmax_tiny", [_ONE_LAYER]),
    "kmax_axial_resnet50": ("kmax_tiny", [_ONE_LAYER, f"{_BACKBONE}name=kmax_axial_resnet50"]),
    "kmax_convnext_tiny": ("kmax_tiny", [_ONE_LAYER]),
    "kmax_tiny_moat0": (
        "kmax_tiny",
        [_ONE_LAYER, f"{_BACKBONE}name=kmax_tiny_moat0", f"{_BACKBONE}stage_filters=8,8,32,32"],
    ),
    "update rule max": ("max_tiny", [_ONE_LAYER]),
    "update rule cmt": ("cmt_tiny", [_ONE_LAYER]),
    "max_deeplab_s": ("max_deeplab_tiny", []),
    "max_deeplab_l": ("max_deeplab_tiny", [f"{_BACKBONE}name=max_deeplab_l"]),
    "cmt_deeplab_axial_r50": ("max_deeplab_tiny", [f"{_BACKBONE}name=cmt_deeplab_axial_r50"]),
}


def config_of_family(family, tiny_overrides, tiny_max_overrides):
    """The config of a narrow network of an architecture; the arguments are fixtures of conftest.py."""
    name, more = FAMILIES[family]
    narrow = tiny_max_overrides if name == "max_deeplab_tiny" else tiny_overrides
    config = load_config(str(_CONFIGS / f"{name}.textproto"), [*narrow, *more])
    if family == "kmax_convnext_tiny":
        # It takes no width of the stem, which the file gives and no override takes back.
        backbone = config.model_options.backbone
        backbone.Clear()
        backbone.name = family
        backbone.stage_filters[:] = [4, 8, 8, 16]
        backbone.stage_blocks[:] = [1, 1, 1, 1]
    return config
