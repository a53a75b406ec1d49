"""`python trainer/train.py` as a user runs it."""

import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]


def train(*flags, cwd=_ROOT):
    command = [sys.executable, str(_ROOT / "trainer/train.py"), *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def test_data_that_is_not_there_is_one_clear_message(tmp_path):
    config = _ROOT / "configs/coco/kmax_r50.textproto"
    done = train(f"--config_file={config}", cwd=tmp_path)
    assert done.returncode == 1
    # Notes on what the config leaves to defaults come first.
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: train_dataset_options") and "converters.coco" in last
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: which experiment?"),
        (["--config_file=nothing.textproto"], "error: cannot read the config file 'nothing.textproto'"),
        (
            ["--config_file=configs/coco/kmax_r50.textproto", "--override=trainer_options.steps=1"],
            "error: override 'trainer_options.steps=1'",
        ),
        (["--config_file=configs/coco/kmax_r50.textproto", "eval"], "error: unexpected argument 'eval'"),
        (
            ["--mode=trian"],
            "error: flag --mode: expected one of train, eval, train_and_eval, continuous_eval; got",
        ),
        (["--mode=trian"], "; did you mean 'train'?"),
        (["--confg_file=a"], "error: unknown flag --confg_file; did you mean '--config_file'?"),
    ],
)
def test_wrong_flags_end_without_a_traceback(flags, message):
    done = train(*flags)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
