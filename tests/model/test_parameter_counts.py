"""Parameter counts, compared with the published ones."""

import json
import lzma
import math

import pytest

from deeplab2_kmax.config import load_config
from deeplab2_kmax.model.parameter_counts import count_parameters

PUBLISHED_MILLIONS = {
    "kmax_deeplab/kmax_meta_r50_os32": 57,
    "kmax_deeplab/kmax_meta_axial_r50_os32": 74,
    "kmax_deeplab/kmax_meta_convnext_tiny_os32": 61,
    "kmax_deeplab/kmax_meta_convnext_small_os32": 83,
    "kmax_deeplab/kmax_meta_convnext_base_os32": 122,
    "kmax_deeplab/kmax_meta_convnext_large_os32": 232,
    "max_deeplab/max_deeplab_s_os16_res1025_100k": 61.9,
    "max_deeplab/max_deeplab_l_os16_res1025_100k": 451,
}


def test_every_kind_of_parameter(configs, golden_keys):
    """Counts on the network are those on the names in DeepLab2's checkpoint."""
    counts = count_parameters(load_config(str(configs / "coco" / "kmax_convnext_tiny.textproto")))
    shapes = golden_keys("kmax_convnext_tiny_coco")

    def count(wanted):
        return sum(math.prod(shape) for key, shape in shapes.items() if wanted(key))

    def trains(key):
        return not key.endswith(("moving_mean", "moving_variance"))

    def is_semantic(key):
        return key.startswith("semantic_")

    assert counts.total == count(lambda key: True)
    assert counts.trainable == count(trains)
    assert counts.encoder == count(lambda key: trains(key) and key.startswith("encoder/"))
    assert counts.semantic_branch == count(lambda key: trains(key) and is_semantic(key))
    assert counts.panoptic == count(lambda key: trains(key) and not is_semantic(key))
    # Shifts before a softmax have no effect and are not read: 96 in decoder layers, 48 in each of 12 axial attentions.
    needed = count(lambda key: not is_semantic(key) and "predictor/_transformer_class_head" not in key)
    assert counts.inference == needed - 96 - 12 * 48


@pytest.mark.parametrize("experiment, millions", PUBLISHED_MILLIONS.items())
def test_published_counts_are_those_without_the_semantic_branch(golden, experiment, millions):
    """On DeepLab2's own list of keys, which our models match one by one (tests/checkpoints/test_deeplab2_keys.py)."""
    stored = json.loads(lzma.decompress((golden / "checkpoint_keys.json.xz").read_bytes()))
    shapes = stored["architectures"][stored["experiments"][f"coco/{experiment}"]]
    counted = sum(
        math.prod(shape)
        for key, shape in shapes.items()
        if not key.startswith("semantic_") and not key.endswith(("moving_mean", "moving_variance"))
    )
    assert round(counted / 1e6, 1 if isinstance(millions, float) else 0) == millions
