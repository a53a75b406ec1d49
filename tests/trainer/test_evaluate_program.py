"""`python evaluation/evaluate.py`: a checkpoint on a data set, into a folder of its own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import deeplab2_kmax as dk
from deeplab2_kmax import training
from deeplab2_kmax.converters.shapes import convert_shapes
from deeplab2_kmax.evaluation.per_image import ImageFigures
from deeplab2_kmax.evaluation.scoring.score import Options, score_files
from helpers.survival_runs import CONFIG, NAME, overrides

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """A folder with the records of two images to evaluate on."""
    folder = tmp_path_factory.mktemp("records")
    convert_shapes(str(folder), num_train=2, num_val=2, size=33)
    return folder


@pytest.fixture(scope="module")
def fields(records, tiny_overrides):
    # The data are elsewhere than the config says: --file_pattern has to find them.
    moved = [*overrides(records, tiny_overrides, steps=1, interval=1), "eval_dataset_options.file_pattern=no/such-*"]
    return [*moved, "evaluator_options.save_predictions=false", "evaluator_options.num_summary_images=0"]


@pytest.fixture(scope="module")
def checkpoint(fields, tmp_path_factory):
    """The untrained weights of a very small model; evaluating them takes as long as evaluating good ones."""
    model = dk.build_model(dk.load_config(str(CONFIG), fields))
    return dk.save_checkpoint(model, str(tmp_path_factory.mktemp("run") / "ckpt-7"))


def evaluate(fields, **flags):
    command = [sys.executable, str(_ROOT / "evaluation/evaluate.py"), f"--config_file={CONFIG}"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    command += [f"--override={field}" for field in fields]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ}, timeout=300)


def test_a_checkpoint_is_evaluated_into_a_folder(fields, checkpoint, records, tmp_path):
    before = sorted(os.listdir(os.path.dirname(checkpoint)))
    raw = [*fields, "evaluator_options.save_raw_predictions=true"]
    done = evaluate(raw, checkpoint=checkpoint, output_dir=tmp_path, file_pattern=f"{records}/val-*")
    assert done.returncode == 0, done.stderr
    assert "PQ" in done.stdout and "Traceback" not in done.stderr
    (metrics,) = (tmp_path / NAME).rglob("metrics-*.json")
    content = json.loads(metrics.read_text())
    assert content["images"] == 2 and 0 <= content["panoptic_quality"]["all"]["pq"] <= 1
    # Its raw predictions, scored as files, have the same figures.
    (metrics_folder,) = (tmp_path / NAME).rglob("raw_panoptic")
    figures = score_files(f"{records}/val-*", str(metrics_folder), Options(dataset="shapes"), processes=1)
    assert figures.result().as_dict() == content["panoptic_quality"] and content["panoptic_quality"]["per_class"]
    (per_image,) = (tmp_path / NAME).rglob("images-*.npz")
    assert ImageFigures.load(per_image).names == figures.names
    # The folder of the checkpoint is only read, and nothing is trained.
    assert sorted(os.listdir(os.path.dirname(checkpoint))) == before
    assert not list((tmp_path / NAME).glob("ckpt-*"))


def test_an_output_folder_with_checkpoints_of_its_own_is_refused(fields, checkpoint, tmp_path):
    config = dk.load_config(str(CONFIG), fields)
    own = dk.save_checkpoint(dk.build_model(config), str(tmp_path / NAME / "ckpt-1"))
    with pytest.raises(dk.ConfigError) as error:
        training.evaluate_checkpoint(config, checkpoint, str(tmp_path))
    for part in ("output_dir", f"{tmp_path}/{NAME}", own, checkpoint, "choose another folder"):
        assert part in str(error.value)


def test_a_checkpoint_that_is_not_there_is_named(fields, tmp_path):
    with pytest.raises(dk.CheckpointError, match=f"{tmp_path}/ckpt-9"):
        training.evaluate_checkpoint(dk.load_config(str(CONFIG), fields), f"{tmp_path}/ckpt-9", str(tmp_path / "out"))


def test_files_that_are_not_there_are_named_by_their_field(fields, checkpoint, tmp_path):
    with pytest.raises(dk.DataError, match=r"eval_dataset_options.*no/such-\*"):
        training.evaluate_checkpoint(dk.load_config(str(CONFIG), fields), checkpoint, str(tmp_path))
