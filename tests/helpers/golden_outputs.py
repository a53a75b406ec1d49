"""Compares the outputs of a model with DeepLab2's, recorded in tests/golden."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

OUTPUTS = (
    "pixel_space_mask_logits",
    "transformer_class_logits",
    "semantic_logits",
    "pixel_space_normalized_feature",
)


def images_of(case: Mapping[str, np.ndarray]) -> np.ndarray:
    """The images of a golden case, float32 [B, H, W, 3]; a case with a single image is a batch of one."""
    image = case["image"]
    return (image if image.ndim == 4 else image[np.newaxis]).astype(np.float32)


def assert_outputs_equal(outputs, case: Mapping[str, np.ndarray]) -> None:
    """Compares all outputs with those of a golden case, to 1e-4 of the largest value.

    A case with a `stride` holds only every so many rows and columns of the maps.
    """
    for name in OUTPUTS:
        actual, expected = np.asarray(outputs[name]), case[name]
        if "stride" in case and actual.ndim == 4:
            actual = actual[:, :: case["stride"], :: case["stride"]]
        assert actual.shape == expected.shape, name
        assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max(), name
