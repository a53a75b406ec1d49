"""Fixtures for tests of the network."""

import numpy as np
import pytest

OUTPUTS = (
    "pixel_space_mask_logits",
    "transformer_class_logits",
    "semantic_logits",
    "pixel_space_normalized_feature",
)


@pytest.fixture(scope="session")
def assert_equals_deeplab2(golden, golden_keys, golden_checkpoint):
    """(model, case): restores the case's checkpoint, using every key, and compares all outputs with DeepLab2's.

    A case with a `stride` holds maps at every so many rows and columns only.
    """
    from deeplab2_kmax.checkpoints import load_checkpoint

    def check(model, case: str) -> None:
        report = load_checkpoint(model, golden_checkpoint(case))
        assert report.complete and set(report.loaded) == set(golden_keys(case))
        expected = np.load(golden / f"{case}.npz")
        image = expected["image"]
        outputs = model((image if image.ndim == 4 else image[np.newaxis]).astype(np.float32), training=False)
        for name in OUTPUTS:
            actual = outputs[name].numpy()
            if "stride" in expected and actual.ndim == 4:
                actual = actual[:, :: expected["stride"], :: expected["stride"]]
            assert actual.shape == expected[name].shape, name
            assert np.abs(actual - expected[name]).max() <= 1e-4 * np.abs(expected[name]).max(), name

    return check
