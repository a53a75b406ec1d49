"""What is kept of a step that was not finite."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import textwrap

import numpy as np
import pytest
import tensorflow as tf

import deeplab2_kmax.training.step.debug_bundle as debug_bundle
from deeplab2_kmax.cli import main as command
from deeplab2_kmax.training.step.debug_bundle import DebugBundles
from deeplab2_kmax.training.step.non_finite import NonFinite
from helpers.survival_runs import CONFIG, small_runs, write_records


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """(message, the run's folder, output) of a training command whose weights explode in the first step."""
    folder = tmp_path_factory.mktemp("non_finite")
    overrides = [
        *small_runs(write_records(folder, train=4, val=1)),
        "trainer_options.steps_per_loop=2",
        "trainer_options.solver_options.base_learning_rate=1e30",
        "trainer_options.solver_options.warmup_steps=0",
        "trainer_options.gradient_accumulation_steps=2",
        "trainer_options.non_finite_policy=SKIP",
        "trainer_options.max_skipped_in_a_row=2",
    ]
    arguments = ["train", f"--config_file={CONFIG}", f"--model_dir={folder}/runs"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        command.main([*arguments, *(f"--override={override}" for override in overrides)])
    return str(ended.value.code), folder / "runs" / "shapes_kmax_tiny", printed.getvalue()


def test_the_command_ends_with_one_message(failed):
    message, run, printed = failed
    bundle = run / "debug" / "step-3"
    assert "\n" not in message
    assert message.startswith("error: training stopped at step 3 after 2 such steps in a row: not finite: ")
    assert message.endswith(f"usually help. The batch and how to replay it are in {bundle}")
    assert "total_loss" in message
    # Where lines break depends on how fast the machine is.
    assert "1 step skipped" in printed


def test_the_bundle_says_what_was_not_finite(failed):
    bundle = failed[1] / "debug" / "step-3"
    report = json.loads((bundle / "report.json").read_text())
    assert report["step"] == 3
    assert report["loss_terms"]["total_loss"] in ("nan", "inf")
    assert report["gradients_not_finite"]
    # What the step before made of the weights is absurd, but no step that failed came near them.
    assert report["variables_not_finite"] == []
    with np.load(bundle / "batch.npz") as batch:
        assert batch["image"].shape == (2, 33, 33, 3)
        assert batch["image_name"].tolist() == report["records"]
    assert all(name and name in failed[0] for name in report["records"])


def test_the_readme_replays_the_step(failed, monkeypatch, capsys):
    monkeypatch.chdir(failed[1] / "debug" / "step-3")
    readme = pathlib.Path("README.txt").read_text()
    code = textwrap.dedent("\n".join(line for line in readme.split("\n") if line.startswith("    ")))
    names = {}
    exec(code, names)
    assert not np.isfinite(names["terms"]["total_loss"].numpy()).all()
    assert "total_loss" in capsys.readouterr().out


class _Model:
    variables = (tf.Variable([1.0, np.inf], name="broken"), tf.Variable(1.0, name="sound"))


@pytest.fixture
def bundles(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(debug_bundle, "save_checkpoint", lambda model, prefix: None)
    return DebugBundles(str(tmp_path), tiny_config, _Model)


FOUND = NonFinite(7, {"total_loss": float("inf")}, ["broken:0"], 2, {"image": np.zeros([1, 2, 2, 3], np.float32)})


def test_older_bundles_stay_and_the_disk_is_not_filled(bundles, tmp_path):
    folders = [f"{tmp_path}/debug/step-7{suffix}" for suffix in ("", "-2", "-3", "-4", "-5")]
    for folder in folders:
        assert bundles.save(FOUND) == f"The batch and how to replay it are in {folder}"
        assert json.loads(pathlib.Path(folder, "report.json").read_text())["variables_not_finite"] == ["broken:0"]
    assert bundles.save(FOUND) == f"No debug bundle was saved: {tmp_path}/debug holds 5 already"
    assert len(os.listdir(tmp_path / "debug")) == 5


def test_each_worker_has_bundles_of_its_own(bundles, tmp_path):
    of_workers = [dataclasses.replace(bundles, worker=number) for number in range(7)]
    for number, each in enumerate(of_workers):
        assert each.save(FOUND) == f"The batch and how to replay it are in {tmp_path}/debug/step-7-worker-{number}"
    assert of_workers[1].save(FOUND).endswith("/debug/step-7-worker-1-2")
    readme = (tmp_path / "debug/step-7-worker-1/README.txt").read_text()
    assert "the batch of this worker" in readme and "(weights: those of the last checkpoint)" in readme
    # Those of a run by itself are told apart from them.
    assert bundles.save(FOUND).endswith("/debug/step-7")


def test_a_bundle_that_cannot_be_written_is_no_reason_to_lose_the_message(bundles, tmp_path):
    (tmp_path / "debug").write_text("a file")
    assert bundles.save(FOUND).startswith(f"The debug bundle could not be saved to {tmp_path}/debug: ")
