"""The networks on MaX-DeepLab's skeleton that its tests share."""

import functools

import pytest

LIKE_L = (
    "model_options.backbone.name=max_deeplab_l",
    "model_options.backbone.stage_blocks=1,1,2,1",
    "model_options.backbone.first_stage_blocks=1",
    "model_options.backbone.extra_decoder_blocks=1",
)


@pytest.fixture(scope="session")
def tiny(tiny_max_config):
    """(size, *overrides) -> config of a network with a few thousand weights at 65 x 65, built like MaX-S or MaX-L."""
    return lambda size, *overrides: tiny_max_config(*(LIKE_L if size == "l" else ()), *overrides)


@pytest.fixture(scope="session")
def tiny_model(tiny, golden_value):
    """size -> the network of that config, with weights of the golden cases' kind: all residual branches count."""
    from deeplab2_kmax.checkpoint_keys import checkpoint_variables
    from deeplab2_kmax.model import build_model

    @functools.cache
    def build(size):
        model = build_model(tiny(size))
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
