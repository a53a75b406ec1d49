"""Post-processing of operations that other runtimes have as well: the same maps, with scores equal but for rounding."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.postprocessing import MaskwiseSettings, PostprocessingSettings, Postprocessor
from deeplab2_kmax.postprocessing.upsampled_top2 import whole_tensors

SLOTS, CLASSES = 12, 6
MASKWISE = MaskwiseSettings(0.2, 0.15, free_fraction=0.3, class_weight=1.0, mask_weight=1.0)
SETTINGS = PostprocessingSettings((33, 41), tuple(range(1, CLASSES + 1)), 3, 0, 256, 6, 15, 0.4, 0.2, MASKWISE)
# Operations that OpenVINO, ONNX or LiteRT, or what converts to them, do not have, as found in 2026, or, the last two,
# that OpenVINO takes seconds for.
REFUSED = {"Bitcast", "Bincount", "DenseBincount", "EnsureShape", "UnsortedSegmentSum", "TensorListReserve"}


def _outputs(kind: str, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    masks, classes = rng.normal(0, 4, (batch, 9, 11, SLOTS)), rng.normal(0, 2, (batch, SLOTS, CLASSES + 1))
    if kind == "tied":  # Few different values, so that slots tie within pixels, and in their order of confidence.
        masks, classes = np.round(masks / 4) * 4, np.round(classes / 2) * 2
    if kind == "far apart":  # So far from pixel to pixel that exponentials of what lies between underflow.
        masks *= 100
    return {
        "pixel_space_mask_logits": masks.astype(np.float32),
        "transformer_class_logits": classes.astype(np.float32),
    }


def _operations(settings: PostprocessingSettings) -> set[str]:
    outputs = {
        "pixel_space_mask_logits": tf.TensorSpec([None, 9, 11, SLOTS]),
        "transformer_class_logits": tf.TensorSpec([None, SLOTS, CLASSES + 1]),
    }
    graph = tf.function(Postprocessor(settings), autograph=False).get_concrete_function(outputs).graph.as_graph_def()
    return {node.op for nodes in (graph.node, *(f.node_def for f in graph.library.function)) for node in nodes}


@pytest.mark.parametrize(("kind", "batch"), [("random", 1), ("tied", 3)])
@pytest.mark.parametrize("size", [(33, 41), (34, 40)])  # With whole strides from the logits' pixels, and without.
@pytest.mark.parametrize(("method", "pixel_confidence"), [("maskwise", 0.4), ("maskwise", 0.2), ("pixelwise", 0.4)])
def test_portable_maps_are_the_same(method, pixel_confidence, size, kind, batch):
    maskwise = MASKWISE if method == "maskwise" else None
    settings = dataclasses.replace(SETTINGS, size=size, pixel_confidence=pixel_confidence, maskwise=maskwise)
    outputs = _outputs(kind, batch)
    expected = Postprocessor(settings)(outputs)
    maps = Postprocessor(dataclasses.replace(settings, portable=True))(outputs)
    assert len(np.unique(expected["panoptic_pred"])) > 3
    assert maps.keys() == expected.keys()
    for name, values in expected.items():
        assert maps[name].dtype == values.dtype
        np.testing.assert_allclose(maps[name], values, rtol=0, atol=1e-5 if name.endswith("scores") else 0)


def test_portable_maps_are_the_same_where_exponentials_underflow():
    outputs = _outputs("far apart", 1)
    expected = Postprocessor(SETTINGS)(outputs)
    maps = Postprocessor(dataclasses.replace(SETTINGS, portable=True))(outputs)
    np.testing.assert_array_equal(maps["panoptic_pred"], expected["panoptic_pred"])
    # Logits of 1000 themselves are rounded to 6e-5.
    np.testing.assert_allclose(maps["instance_scores"], expected["instance_scores"], rtol=0, atol=1e-3)


def test_stripes_of_logits_change_nothing(monkeypatch):
    expected = Postprocessor(SETTINGS)(_outputs("random", 2))
    monkeypatch.setattr(whole_tensors, "_VALUES_AT_ONCE", 4 * 11 * SLOTS)  # Stripes of 4, 4 and 1 of the 9 rows.
    maps = Postprocessor(dataclasses.replace(SETTINGS, portable=True))(_outputs("random", 2))
    np.testing.assert_array_equal(maps["panoptic_pred"], expected["panoptic_pred"])
    np.testing.assert_allclose(maps["instance_scores"], expected["instance_scores"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("maskwise", [MASKWISE, None])
def test_portable_maps_need_no_operation_that_other_runtimes_lack(maskwise):
    settings = dataclasses.replace(SETTINGS, maskwise=maskwise)
    assert _operations(settings) & REFUSED
    assert not _operations(dataclasses.replace(settings, portable=True)) & REFUSED
