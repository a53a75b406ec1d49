"""Fixtures for tests of the network."""

import numpy as np
import pytest

from helpers.golden_outputs import assert_outputs_equal, images_of


@pytest.fixture(scope="session")
def assert_equals_deeplab2(golden, golden_keys, golden_checkpoint):
    """(model, case): restores the case's checkpoint, using every key, and compares all outputs with DeepLab2's."""
    from deeplab2_kmax.checkpoints import load_checkpoint

    def check(model, case: str) -> None:
        report = load_checkpoint(model, golden_checkpoint(case))
        assert report.complete and set(report.loaded) == set(golden_keys(case))
        expected = np.load(golden / f"{case}.npz")
        assert_outputs_equal(model(images_of(expected), training=False), expected)

    return check
