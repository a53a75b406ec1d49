"""Documented commands that are run: those that only tell something, and with -m slow a small run from data to pictures.

Lines are taken from the pages; a page that words a command in another way has to be followed here. The commands of
docs/your_own_dataset.md run in tests/your_own_dataset.
"""

import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.cli import main as command_line
from helpers.documented_commands import ROOT, documented_commands

LINES = {command.line for command in documented_commands()}
TELLING = [
    ("deeplab2-kmax --help", {}),
    ("deeplab2-kmax config coco/kmax_r50", {}),
    ("deeplab2-kmax config my.textproto --diff coco/kmax_r50", {"my.textproto": "coco/max_s_641_100k"}),
    ("deeplab2-kmax config FILE", {"FILE": "shapes/kmax_tiny"}),
    (
        "deeplab2-kmax config STEP --diff STEP_BEFORE",
        {"STEP": "coco/ladder/5_cmt", "STEP_BEFORE": "coco/ladder/4_pixel_update"},
    ),
]
STEPS = "--override=trainer_options.solver_options.training_number_of_steps=2"
QUICK = [STEPS, "--override=trainer_options.steps_per_loop=2"]
TINY_RUN = "python trainer/train.py --config_file=configs/shapes/kmax_tiny.textproto"
EXPORT = "deeplab2-kmax export --config_file=shapes/kmax_tiny --checkpoint=runs/shapes_kmax_tiny"
# (command, what makes it short, what it leaves). Where there is no command, the second is one that others need.
RUN = [
    (
        "deeplab2-kmax convert shapes --output_dir=data/shapes",
        ["--num_train=16", "--num_val=8"],
        "data/shapes/example.png",
    ),
    (None, [*shlex.split(TINY_RUN), *QUICK], "runs/shapes_kmax_tiny/ckpt-2.index"),
    (f"{TINY_RUN} --print_variables", [], None),
    ("deeplab2-kmax train --config_file=shapes/kmax_tiny --print_variables", [], None),
    (
        f"{TINY_RUN} --override experiment_name=shapes_24_slots --override model_options.max_deeplab.num_mask_slots=24"
        " --override model_options.initial_checkpoint=runs/shapes_kmax_tiny"
        " --override model_options.skip_other_shapes_from_initial_checkpoint=true",
        QUICK,
        "runs/shapes_24_slots/restore_report.txt",
    ),
    (
        "deeplab2-kmax visualize clusters data/shapes/example.png --config_file=shapes/kmax_tiny"
        " --checkpoint=runs/shapes_kmax_tiny --output=clusters",
        [],
        "clusters/example_clusters.png",
    ),
    (
        None,
        [*shlex.split(EXPORT), "--output=runs/shapes_kmax_tiny/export"],
        "runs/shapes_kmax_tiny/export/saved_model.pb",
    ),
    (
        "deeplab2-kmax predict photo.jpg --model=runs/shapes_kmax_tiny/export --output=predictions",
        [],
        "predictions/photo_overlay.png",
    ),
    (
        "python trainer/train.py --config_file=configs/shapes/cmt_tiny.textproto --mode=train_and_eval"
        " --override=trainer_options.seed=1 --override=train_dataset_options.seed=1",
        QUICK,
        "runs/shapes_cmt_tiny/eval/metrics-2.json",
    ),
]


@pytest.mark.parametrize(("line", "names"), TELLING)
def test_commands_that_tell_something(line, names, capsys, monkeypatch):
    assert line in LINES
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        command_line.main([names.get(word, word) for word in line.split()[1:]])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_flags_that_stand_alone_in_a_sentence_work(tmp_path, monkeypatch, capsys):
    """docs/your_own_dataset.md, below "Check": the pattern finds the manifest as well."""
    flags = "--dataset=my/dataset.json --file_pattern='my/records/*'"
    assert f"`{flags}`" in (ROOT / "docs" / "your_own_dataset.md").read_text()
    monkeypatch.chdir(tmp_path)
    from deeplab2_kmax.converters.shapes import convert_shapes

    convert_shapes("my/records", num_train=2, num_val=2, num_processes=1)
    (tmp_path / "my/dataset.json").write_bytes((ROOT / "deeplab2_kmax/datasets/shapes.json").read_bytes())
    with pytest.raises(SystemExit) as ended:
        command_line.main(["check-dataset", *shlex.split(flags)])
    assert (tmp_path / "my/records/manifest.json").exists()
    said = capsys.readouterr().out
    assert ended.value.code == 0, said
    assert "4 records in 2 files" in said


@pytest.mark.slow
def test_a_small_run_from_data_to_pictures(tmp_path):
    for name in ("configs", "trainer"):
        (tmp_path / name).symlink_to(ROOT / name)
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (60, 90, 3), np.uint8)).save(tmp_path / "photo.jpg")
    programs = {"python": [sys.executable], "deeplab2-kmax": [sys.executable, "-m", "deeplab2_kmax.cli.main"]}
    for line, extra, result in RUN:
        assert line is None or line in LINES, f"no page has {line}"
        program, *arguments = [*shlex.split(line or ""), *extra]
        done = subprocess.run(
            [*programs[program], *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, f"{line or extra}\n{done.stderr}"
        assert result is None or (tmp_path / result).exists(), line or extra
