"""docs/your_own_dataset.md, followed to the letter: its files are written, its commands run, on a narrow model."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deeplab2_kmax.cli import main as command
from deeplab2_kmax.datasets import read_descriptor

# Of the page's training command; the model is as narrow as tests like it, and few steps are made.
STEPS = 4
NARROW = (
    "train_dataset_options.min_resize_value=65",
    "train_dataset_options.max_resize_value=65",
    "eval_dataset_options.min_resize_value=65",
    "eval_dataset_options.max_resize_value=65",
    "train_dataset_options.seed=1",
    "trainer_options.steps_per_loop=2",
    "model_options.backbone.stage_blocks=1,1,1,1",
    "model_options.decoder.aspp_channels=8",
    "model_options.decoder.decoder_channels=8",
    "model_options.max_deeplab.num_mask_slots=8",
    "model_options.max_deeplab.pixel_decoder.num_blocks=1,1,1,1",
    "model_options.max_deeplab.transformer_decoder.num_blocks=0,0,1",
    "evaluator_options.thing_area_limit=0",
    "evaluator_options.stuff_area_limit=0",
    f"trainer_options.solver_options.training_number_of_steps={STEPS}",
)


@pytest.fixture(scope="module")
def page(configs):
    return (configs.parent / "docs" / "your_own_dataset.md").read_text()


@pytest.fixture
def workplace(tmp_path, monkeypatch, configs, page, make_folders):
    """A folder with the user's pictures, the page's two files, and the project's configs beside them."""
    make_folders(tmp_path / "my", 20)
    (tmp_path / "configs").symlink_to(configs)
    for language, file in (("json", "dataset.json"), ("textproto", "experiment.textproto")):
        (text,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
        (tmp_path / "my" / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(line, overrides):
    program, *arguments = shlex.split(line)
    assert program == "deeplab2-kmax"
    if arguments[0] == "convert":
        # Its flags are absl's, which a process can define only once.
        subprocess.run([sys.executable, "-m", "deeplab2_kmax.cli.main", *arguments], check=True)
        return
    arguments += [f"--override={override}" for override in overrides]
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 0, line


def test_the_page_works_as_written(workplace, page, tiny_overrides, capfd):
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert [line.split()[1] for line in lines] == ["convert", "check-dataset", "train", "eval", "predict"]
    for line in lines:
        _run(line, [*tiny_overrides, *NARROW])

    assert "training can start: no errors, 0 warnings in 20 records" in capfd.readouterr().out
    assert (workplace / "my" / "check.html").exists()
    run = workplace / "runs" / "my_experiment"
    assert (run / f"ckpt-{STEPS}.index").exists()
    metrics = json.loads((run / "eval" / f"metrics-{STEPS}.json").read_text())
    assert metrics["images"] == 4
    assert len(list((workplace / "my" / "records").glob("*.tfrecord"))) == 2
    assert {path.name for path in (workplace / "my" / "predictions").iterdir()} == {
        f"picture_00_{kind}" for kind in ("overlay.png", "panoptic.png", "segments.json")
    }
    table = json.loads((workplace / "my" / "predictions" / "picture_00_segments.json").read_text())
    assert (table["dataset"], table["height"], table["width"]) == ("my_data", 72, 72)
    names = {c.name for c in read_descriptor("my/dataset.json").classes}
    assert {segment["class_name"] for segment in table["segments"]} <= names
    assert np.asarray(Image.open(workplace / "my" / "predictions" / "picture_00_overlay.png")).shape[2] == 3
