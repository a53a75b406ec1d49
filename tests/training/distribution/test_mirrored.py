"""Two replicas, of one process or of two workers, do what one does with the whole batch."""

import json
import pathlib

import pytest

from helpers.workers import finish, start, start_workers

SCRIPT = pathlib.Path(__file__).parents[2] / "helpers" / "two_replicas.py"


@pytest.fixture(scope="module")
def all_results():
    """What each process found: that of two replicas, and the two workers."""
    found = []
    for status, stdout, stderr in finish([start([SCRIPT]), *start_workers([SCRIPT])]):
        assert status == 0, stderr[-2000:]
        found.append(json.loads(stdout.splitlines()[-1]))
    return dict(zip(("replicas", "worker 0", "worker 1"), found))


@pytest.fixture(params=["replicas", "worker 0", "worker 1"])
def results(request, all_results):
    """What a process found that does all of the script."""
    return all_results[request.param]


@pytest.fixture
def of_replicas(all_results):
    """What the process of two replicas found, which does more than the workers."""
    return all_results["replicas"]


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


@pytest.mark.parametrize("parts", ["1", "3"])
def test_parts_of_a_batch_update_as_the_whole_on_one_device(results, parts):
    # With gradients clipped by the norm of their sum.
    found = results["accumulation"][parts]
    assert found["distance"] < 1e-5 and found["apart"] < 1e-5
    assert found["images"] == 4 * 6


def test_a_gradient_that_overflows_on_one_replica_halves_the_scale_of_both(results):
    first, second, third = results["loss_scale"]
    assert set(first["scales"]) == {2.0**126} and set(first["weights"]) == {0.0} and first["skipped"] == 1
    # As one device does from here on, with a gradient of -4; the scale grows after each good step, to its largest.
    assert set(second["scales"]) == {2.0**126} and second["skipped"] == 0
    assert len(set(second["weights"])) == 1 and second["weights"][0] == pytest.approx(0.4, rel=1e-6)
    # Momentum, and a gradient of -3.2.
    assert third["skipped"] == 0 and third["weights"][0] == pytest.approx(0.4 + 0.9 * 0.4 + 0.1 * 3.2, rel=1e-6)


def test_evaluation_counts_each_image_once(results):
    # Three images: the second replica has none in the last round.
    figures = results["eval"]["figures"]
    assert figures["evaluation/pq/PQ"] == pytest.approx(1.0)
    assert figures["evaluation/pq/TP"] == pytest.approx(3.0)
    assert figures["losses/eval_total_loss"] == pytest.approx((17 + 9 + 9) / 3)


def test_all_metrics_count_each_image_once(results):
    content = results["eval"]["file"]
    assert content["panoptic_quality"]["all"]["pq"] == pytest.approx(1.0)
    assert content["instance_ap"]["ap"] == pytest.approx(1.0)
    # Cityscapes ignores instances of less than 100 pixels.
    assert content["cityscapes_ap"]["ap"] == 0.0
    assert content["boundary"]["panoptic_quality"]["all"]["pq"] == pytest.approx(1.0)
    counted = {of: sum(each["count"] for each in content["calibration"][of]["bins"]) for of in ("pixels", "segments")}
    # Each image has a thing and stuff.
    assert counted == {"pixels": 17 * 9 + 9 * 17 + 9 * 9, "segments": 2 * 3}
    by_size = content["panoptic_quality_by_size"]
    assert sum(of_size["all"]["pq"] > 0 for of_size in by_size.values()) > 0


def test_optimizers_keep_replicas_alike(of_replicas):
    # The decay of the second replica's own kernels among them: TensorFlow names these kernel/replica_1:0.
    assert len(of_replicas["optimizers"]) == 10
    assert {name: distance for name, distance in of_replicas["optimizers"].items() if distance > 1e-6} == {}


def test_each_replica_averages_for_itself(of_replicas):
    averages = of_replicas["averages"]
    # Weights 1, 0, -1.9 (momentum) and mean statistics 1, 3, 5 with decays 1/10 and 2/11.
    weight = 2 / 11 * 0.1 - 9 / 11 * 1.9
    statistic = 2 / 11 * (0.1 + 0.9 * 3) + 9 / 11 * 5
    assert averages["replicas"] == pytest.approx([weight, weight])
    assert averages["saved"] == pytest.approx([weight, statistic])
    assert averages["lent"] == pytest.approx(statistic)
    assert averages["back"] == pytest.approx(-1.9)
