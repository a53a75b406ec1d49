"""Two replicas do what one does with the whole batch."""

import json
import pathlib
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def results():
    script = pathlib.Path(__file__).parents[2] / "helpers" / "two_replicas.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_step_follows_the_mean_over_replicas(results):
    # As in test_loop: the replicas' gradients are -2 and -6, their mean -4, the learning rate 0.1.
    assert results["train"]["weight"] == pytest.approx(0.4, rel=1e-5)
    assert results["train"]["step"] == 1
    assert results["train"]["losses"] == pytest.approx([5.0, 0.0, 5.0])


def test_a_loss_that_is_not_finite_stops_both(results):
    assert "at step 1: not finite: other_loss, total_loss" in results["train"]["message"]


def test_gradients_are_clipped_by_each_replicas_norm_or_by_that_of_the_sum(results):
    # -1 and -3 limited to 2 each give -3; their sum -4 limited to 2 gives -2. The learning rate is 0.1.
    assert results["clip"]["each"] == pytest.approx([0.3, 2.0], rel=1e-5)
    assert results["clip"]["sum"] == pytest.approx([0.2, 4.0], rel=1e-5)


@pytest.mark.parametrize("case", ["host", "graph", "accumulated"])
def test_what_is_not_finite_on_one_replica_is_skipped_by_both(results, case):
    # Batch norms gather statistics over both replicas; in accumulation they do so within a loop.
    assert results["skip"][case] == {"distance": 0.0, "apart": 0.0, "steps": 3, "skipped": 1.0}


def test_evaluation_counts_each_image_once(results):
    # Three images: the second replica has none in the last round.
    assert results["eval"]["evaluation/pq/PQ"] == pytest.approx(1.0)
    assert results["eval"]["evaluation/pq/TP"] == pytest.approx(3.0)
    assert results["eval"]["losses/eval_total_loss"] == pytest.approx((17 + 9 + 9) / 3)


def test_optimizers_keep_replicas_alike(results):
    # The decay of the second replica's own kernels among them: TensorFlow names these kernel/replica_1:0.
    assert len(results["optimizers"]) == 10
    assert {name: distance for name, distance in results["optimizers"].items() if distance > 1e-6} == {}


def test_each_replica_averages_for_itself(results):
    averages = results["averages"]
    # Weights 1, 0, -1.9 (momentum) and mean statistics 1, 3, 5 with decays 1/10 and 2/11.
    weight = 2 / 11 * 0.1 - 9 / 11 * 1.9
    statistic = 2 / 11 * (0.1 + 0.9 * 3) + 9 / 11 * 5
    assert averages["replicas"] == pytest.approx([weight, weight])
    assert averages["saved"] == pytest.approx([weight, statistic])
    assert averages["lent"] == pytest.approx(statistic)
    assert averages["back"] == pytest.approx(-1.9)
