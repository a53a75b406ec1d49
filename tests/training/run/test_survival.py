"""Runs that are killed, stopped, or that meet a full disk, and what they go on from."""

import re
import signal

import pytest
import tensorflow as tf

from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import ConfigError
from deeplab2_kmax.training import run_experiment as run
from helpers.survival_runs import CONFIG, NAME, Process, overrides, require_same, write_records

STEPS, INTERVAL = 20, 4


@pytest.fixture(scope="module", name="records")
def records_fixture(tmp_path_factory):
    return write_records(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="module", name="fields")
def fields_fixture(records, tiny_overrides):
    return overrides(records, tiny_overrides, STEPS, INTERVAL)


def run_here(fields, folder, mode="train"):
    run(load_config(str(CONFIG), fields), mode, str(folder))


@pytest.fixture(scope="module", name="uninterrupted")
def uninterrupted_fixture(fields, tmp_path_factory):
    """The last checkpoint of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_here(fields, folder)
    return folder / NAME / f"ckpt-{STEPS}"


def test_a_run_that_was_killed_and_stopped_ends_with_the_same_weights(fields, uninterrupted, tmp_path, capsys):
    folder = tmp_path / NAME

    killed_in_tensors = Process(tmp_path, fields, dies=("tensors", 8))
    assert killed_in_tensors.end() == -signal.SIGXFSZ, killed_in_tensors.output
    assert [path.name for path in folder.glob("ckpt-8*")] == ["ckpt-8_temp"]

    stopped = Process(tmp_path, fields)
    stopped.wait_for(r"^step +9/")
    with pytest.raises(ConfigError, match=rf"^model_dir: process {stopped.pid} on \S+ is training in {folder}\."):
        run_here(fields, tmp_path)
    stopped.send(signal.SIGTERM)
    assert stopped.end() == 128 + signal.SIGTERM
    assert "left behind: ckpt-8_temp" in stopped.output and stopped.start == 4
    assert not [line for line in stopped.output.splitlines() if len(line) > 80 and str(tmp_path) not in line]
    said = re.search(rf"stopped by SIGTERM at step (\d+): the same command goes on from {folder}/ckpt-", stopped.output)
    step = int(said[1])
    assert tf.train.latest_checkpoint(str(folder)) == str(folder / f"ckpt-{step}")

    killed_in_index = Process(tmp_path, fields, dies=("index", STEPS))
    assert killed_in_index.end() == -signal.SIGXFSZ, killed_in_index.output
    assert killed_in_index.start == step
    assert (folder / f"ckpt-{STEPS}.index").exists()

    run_here(fields, tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert f"left behind: ckpt-{STEPS}.data-00000-of-00001, ckpt-{STEPS}.index" in said
    require_same(folder / f"ckpt-{STEPS}", uninterrupted)
