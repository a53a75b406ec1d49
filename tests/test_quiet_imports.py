"""What libraries say when they are imported does not reach the user's terminal, but what a user asks for does."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMAND = ["-m", "deeplab2_kmax"]
# How our own lines on stderr begin; wrapped ones go on indented.
OURS = re.compile(r"(note|warning|error): |  ")
# Where one of its optimizations of a graph fails, TensorFlow 2.20 goes on without it and says so, whatever the level.
PAST_ALL_LEVELS = re.compile(r"before absl::InitializeLog\(\) is called|meta_optimizer\.cc:\d+\] remapper failed")


def _stderr(*arguments, status=0, **more):
    # The tests' own process has set a level.
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment, **more},
        timeout=600,
    )
    assert done.returncode == status, done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "import deeplab2_kmax as dk; dk.build_model, dk.Predictor"],
        [*COMMAND, "--help"],
        [*COMMAND, "config", "coco/kmax_r50"],
        ["trainer/train.py", "--help"],
        ["trainer/train.py", "--config_file=shapes/kmax_tiny", "--print_variables"],
        ["-m", "deeplab2_kmax.converters.shapes", "--help"],
    ],
    ids=["library", "help", "config", "train help", "optimizers", "converter"],
)
def test_only_our_own_lines_are_on_stderr(arguments):
    assert [line for line in _stderr(*arguments) if not OURS.match(line)] == []


def test_prediction_is_quiet_and_says_what_fails(exported, tmp_path):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "dark.png")
    (tmp_path / "text.png").write_text("no picture")
    predict = [*COMMAND, "predict", "--model", exported, "--output", tmp_path / "out"]
    assert [line for line in _stderr(*predict, tmp_path / "dark.png") if not PAST_ALL_LEVELS.search(line)] == []
    (line,) = _stderr(*predict, tmp_path / "text.png", status=1)
    assert line.startswith("error: ") and "text.png" in line


def test_the_level_of_the_user_counts():
    said = _stderr("-c", "import deeplab2_kmax as dk; dk.build_model", TF_CPP_MIN_LOG_LEVEL="0")
    assert any("tensorflow" in line or "xla" in line for line in said)


def test_errors_and_warnings_of_a_program_stay_visible():
    program = "import warnings, deeplab2_kmax as dk; dk.build_model; warnings.warn('mine', FutureWarning); 1 / 0"
    said = "\n".join(_stderr("-c", program, status=1))
    assert "FutureWarning: mine" in said and "ZeroDivisionError" in said
