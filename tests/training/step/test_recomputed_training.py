"""Recomputation with gradient accumulation: the losses of training that keeps everything."""

import pytest

from benchmarks.loss_curves import loss_curve
from helpers.survival_runs import CONFIG, overrides, write_records


def test_parts_of_a_batch_are_recomputed_with_their_own_random_draws(tmp_path, tiny_overrides):
    # With paths dropped and pixels sampled: a part that was recomputed with the draws of another would have another
    # gradient, and the losses of the next steps show the weights.
    fields = [
        *overrides(write_records(tmp_path, train=8), tiny_overrides, steps=3, interval=3),
        "train_dataset_options.batch_size=4",
        "trainer_options.gradient_accumulation_steps=2",
        "trainer_options.solver_options.base_learning_rate=2e-3",
    ]
    kept, _ = loss_curve(str(CONFIG), fields, steps=3)
    recomputed, _ = loss_curve(str(CONFIG), [*fields, "model_options.recompute_blocks=true"], steps=3)
    assert recomputed == pytest.approx(kept, rel=1e-4)
    assert abs(kept[0] - kept[2]) > 1e-2
