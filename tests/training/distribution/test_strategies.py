"""A run is the same on one device, two replicas and two processes, and compiled."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax.config import config_to_text, load_config
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.training import run_experiment as run
from deeplab2_kmax.training.distribution.strategy import idle_gpus, require_batch_size, require_compilable
from helpers import strategy_cases
from helpers.strategy_cases import STEPS, first_gradients, losses, write_case
from helpers.workers import finish, start, start_trainers

# Code that is not optimized is as right, and there in a fraction of the time.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
LOSS_SCALE = "loss_scale/scale/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture(scope="module")
def case(tmp_path_factory, tiny_overrides, golden_value):
    """The folder of the runs, and the config of each rule."""
    folder = tmp_path_factory.mktemp("strategies")
    return folder, write_case(folder, "kmax", tiny_overrides, golden_value)


@pytest.fixture(scope="module")
def runs(case):
    """All runs at once: by name, what its processes ended with. "one" is this process's; its results."""
    folder, config = case
    script = strategy_cases.__file__
    started = [
        *start_trainers(config, "train_and_eval", folder / "two"),
        start([script, "mirrored", config, folder / "mirrored"]),
        start([script, "compiled", config, folder / "compiled"], XLA_FLAGS=XLA_FLAGS),
    ]
    try:
        results = run(load_config(str(config)), "train_and_eval", str(folder / "one"))
    finally:
        ended = finish(started)
    return {"one": results, "two": ended[:2], "mirrored": ended[2:3], "compiled": ended[3:]}


def require_same_training(run_folder, expected_folder, of_gradients=1e-4):
    """The first gradient of each variable equal to `of_gradients`, the first loss to 1e-4, ten losses to 1e-3."""
    gradients, expected = first_gradients(run_folder), first_gradients(expected_folder)
    assert gradients.keys() == expected.keys()
    largest = max(np.linalg.norm(gradient) for gradient in expected.values())
    for key, gradient in expected.items():
        # What a normalization or a softmax makes ineffective has no gradient but rounding.
        allowed = of_gradients * np.linalg.norm(gradient) + 1e-7 * largest
        assert np.linalg.norm(gradients[key] - gradient) < allowed, key
    curve, expected_curve = losses(run_folder), losses(expected_folder)
    assert curve[0] == pytest.approx(expected_curve[0], rel=1e-4)
    assert curve == pytest.approx(expected_curve, rel=1e-3)
    assert expected_curve[-1] < expected_curve[0]


@pytest.mark.parametrize("name", ["two", "mirrored", "compiled"])
def test_a_run_trains_as_on_one_device(case, runs, name):
    for status, _, stderr in runs[name]:
        assert status == 0, stderr[-3000:]
    require_same_training(case[0] / name / "shapes_kmax_tiny", case[0] / "one" / "shapes_kmax_tiny")


def test_one_of_two_processes_speaks_and_writes(case, runs):
    (_, chief, _), (_, worker, _) = runs["two"]
    assert f"step {STEPS}/{STEPS}" in chief
    assert worker.splitlines() == [line for line in worker.splitlines() if "tells how it goes" in line]
    folder = case[0] / "two" / "shapes_kmax_tiny"
    assert [path.name for path in (case[0] / "two").iterdir()] == ["shapes_kmax_tiny"]
    assert len(list((folder / "train").glob("events*"))) == len(list((folder / "eval").glob("events*"))) == 1
    # Raw predictions come from the process that had the image.
    assert len(list((folder / "vis/raw_panoptic").iterdir())) == 3


def test_one_process_evaluates_the_checkpoint_of_two_to_the_same_figures(case, runs):
    folder, config = case
    metrics = json.loads((folder / "two/shapes_kmax_tiny/eval" / f"metrics-{STEPS}.json").read_text())
    results = run(load_config(str(config)), "eval", str(folder / "two"))
    assert metrics["images"] == 3
    assert metrics["panoptic_quality"]["all"]["pq"] == pytest.approx(results["evaluation/pq/PQ"])
    figures = ImageFigures.load(folder / "two/shapes_kmax_tiny/eval" / f"images-{STEPS}.npz")
    assert len(set(figures.names)) == 3
    assert figures.result().as_dict() == metrics["panoptic_quality"]
    # Quality may be 0; wrong segments and losses are not.
    assert results["evaluation/pq/FP"] > 0
    recorded = json.loads((folder / "two/shapes_kmax_tiny/eval/results.jsonl").read_text().splitlines()[0])["figures"]
    for name, value in results.items():
        assert recorded[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["cmt", "max_deeplab"])
def test_the_steps_of_the_other_rules_compile(rule, tmp_path, tiny_overrides, tiny_max_overrides, golden_value):
    narrow = tiny_overrides if rule == "cmt" else tiny_max_overrides
    config = write_case(tmp_path, rule, narrow, golden_value)
    run(load_config(str(config)), "train", str(tmp_path / "plain"))
    arguments = [strategy_cases.__file__, "compiled", config, tmp_path / "compiled"]
    ((status, _, stderr),) = finish([start(arguments, XLA_FLAGS=XLA_FLAGS)])
    assert status == 0, stderr[-3000:]
    name = f"shapes_{rule}_tiny"
    # XLA sums in another order, and batch norms over few values magnify that.
    require_same_training(tmp_path / "compiled" / name, tmp_path / "plain" / name, of_gradients=5e-3)


@pytest.mark.slow
def test_two_replicas_train_in_float16_as_one_does(case):
    folder, config = case
    half = folder / "float16.textproto"
    half.write_text(config_to_text(load_config(str(config), ["model_options.precision=mixed_float16"])))
    run(load_config(str(half)), "train", str(folder / "half"))
    ((status, _, stderr),) = finish([start([strategy_cases.__file__, "mirrored", half, folder / "half_mirrored"])])
    assert status == 0, stderr[-3000:]
    one, two = (folder / name / "shapes_kmax_tiny" for name in ("half", "half_mirrored"))
    # Activations have three digits.
    # The first steps are skipped by both, as the scale is too large; they have no loss.
    assert losses(two) == pytest.approx(losses(one), rel=5e-3, nan_ok=True)
    assert np.isfinite(losses(one)[-5:]).all()
    scales = [tf.train.load_variable(str(each / f"ckpt-{STEPS}"), LOSS_SCALE) for each in (one, two)]
    assert scales[0] == scales[1]


def test_a_step_that_is_not_finite_ends_both_workers_with_a_bundle_of_each(case, tmp_path):
    _, config = case
    fields = (
        "trainer_options.solver_options.base_learning_rate=1e30",
        "trainer_options.gradient_accumulation_steps=2",
        "trainer_options.solver_options.use_gradient_clipping=false",
        "trainer_options.non_finite_policy=SKIP",
        "trainer_options.max_skipped_in_a_row=2",
    )
    records = []
    for number, (status, _, stderr) in enumerate(finish(start_trainers(config, "train", tmp_path, *fields))):
        assert status == 1
        # Step 2 was skipped by both.
        assert "error: training stopped at step 3 after 2 such steps in a row: not finite: " in stderr, stderr[-3000:]
        bundle = tmp_path / "shapes_kmax_tiny/debug" / f"step-3-worker-{number}"
        assert str(bundle) in stderr
        assert sorted(path.name for path in bundle.iterdir()) == [
            "README.txt", "batch.npz", "config.textproto", "report.json",
        ]  # fmt: skip
        records += json.loads((bundle / "report.json").read_text())["records"]
    # Each has its own half of the batch.
    assert len(records) == len(set(records)) == 4


def strategy(replicas, device="CPU"):
    here = [f"/device:{device}:{index}" for index in range(replicas)]
    return SimpleNamespace(num_replicas_in_sync=replicas, extended=SimpleNamespace(worker_devices=here))


def test_a_batch_that_the_replicas_cannot_share_is_refused():
    require_batch_size(6, strategy(3), "batch_size")
    with pytest.raises(ConfigError, match=r"batch_size: expected a multiple of the 4 replicas.*got 6; 4 would do"):
        require_batch_size(6, strategy(4), "train_dataset_options.batch_size")


def test_xla_is_refused_where_it_cannot_compile():
    require_compilable(strategy(1))
    require_compilable(strategy(2, "GPU"))
    with pytest.raises(ConfigError, match=r"trainer_options.xla: .* 2 replicas on CPUs"):
        require_compilable(strategy(2))


def test_a_cluster_does_not_go_with_a_tpu_or_with_continuous_evaluation(case, tmp_path, monkeypatch):
    config = load_config(str(case[1]))
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ConfigError, match="master: .*TF_CONFIG"):
        run(config, "train", str(tmp_path), master="local")
    with pytest.raises(ConfigError, match="mode: continuous_eval takes one process.*TF_CONFIG"):
        run(config, "continuous_eval", str(tmp_path))


@pytest.mark.parametrize(
    "present, line",
    [
        (0, None),
        (1, "1 GPU is present and unused: --num_gpus=1 uses it"),
        (4, "4 GPUs are present and unused: --num_gpus=4 uses them"),
    ],
)
def test_gpus_that_nobody_asked_for_are_mentioned(monkeypatch, present, line):
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: [kind] * present)
    assert idle_gpus() == line
    assert idle_gpus(num_gpus=1) is None and idle_gpus(master="local") is None
