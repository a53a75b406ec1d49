"""The networks on MaX-DeepLab's skeleton that its tests share."""

import functools

import pytest

LIKE_L = (
    "model_options.backbone.name=max_deeplab_l",
    "model_options.backbone.stage_blocks=1,1,2,1",
    "model_options.backbone.first_stage_blocks=1",
    "model_options.backbone.extra_decoder_blocks=1",
)


NETWORKS = {"s": (), "l": LIKE_L, "cmt": ("model_options.backbone.name=cmt_deeplab_axial_r50",)}


@pytest.fixture(scope="session")
def tiny(tiny_max_config):
    """(name, *overrides) -> config of a network with a few thousand weights at 65 x 65.

    It is built like MaX-S ("s"), MaX-L ("l"), or MaX-S with CMT's layers ("cmt").
    """
    return lambda name, *overrides: tiny_max_config(*NETWORKS[name], *overrides)


@pytest.fixture(scope="session")
def tiny_model(tiny, golden_value):
    """name -> the network of that config, with weights made as in the golden cases: no residual branch is zero."""
    from deeplab2_kmax.checkpoints.keys import checkpoint_variables
    from deeplab2_kmax.model import build_model

    @functools.cache
    def build(name):
        model = build_model(tiny(name))
        for key, variable in checkpoint_variables(model).items():
            variable.assign(golden_value(key, variable.shape))
        return model

    return build


@pytest.fixture(scope="session")
def max_s(configs, small_crop):
    """MaX-DeepLab-S for COCO. Tests leave its variables as they are once they are restored."""
    from deeplab2_kmax.config import load_config
    from deeplab2_kmax.model import build_model

    return build_model(load_config(str(configs / "coco" / "max_s_641_100k.textproto"), small_crop))
