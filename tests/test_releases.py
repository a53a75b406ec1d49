"""What earlier releases wrote still works: checkpoints, exports and half-finished training runs.

Each folder in tests/golden/releases is one release; make_release.py there says what the files are. Only public names
are used here, as users of these files would.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import deeplab2_kmax as dk
from helpers.step_length import changes, length_of_step, loss_of_last_step

RELEASES = pathlib.Path(__file__).parent / "golden" / "releases"
ROOT = pathlib.Path(dk.__file__).resolve().parents[1]


class Release:
    """The files of one release, its archive unpacked to `folder`."""

    def __init__(self, path: pathlib.Path, folder: pathlib.Path):
        with tarfile.open(path / "model.tar.xz") as archive:
            archive.extractall(folder)
        self.folder = folder
        self.config_file = str(path / "config.textproto")
        self.picture = np.asarray(Image.open(path / "picture.png").convert("RGB"))
        self.expected = dict(np.load(path / "expected.npz"))
        self.step = int(self.expected["step"])
        self.checkpoint = str(folder / "run" / "release" / f"ckpt-{self.step}")


@pytest.fixture(
    scope="module",
    params=sorted(path.parent for path in RELEASES.glob("*/config.textproto")),
    ids=lambda path: path.name,
)
def release(request, tmp_path_factory) -> Release:
    return Release(request.param, tmp_path_factory.mktemp("release"))


def _assert_as_then(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to the rounding of float32, which differs between machines."""
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


def _assert_same_map(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for single pixels between two segments of almost equal scores."""
    assert actual.shape == expected.shape
    assert len(np.unique(expected)) > 2, "a map of one segment would show nothing"
    assert np.mean(actual != expected) < 1e-3


def test_there_is_a_release():
    assert list(RELEASES.glob("*/config.textproto"))


def test_its_checkpoint_gives_the_same_outputs(release):
    model = dk.build_model(dk.load_config(release.config_file))
    report = dk.load_checkpoint(model, release.checkpoint)  # strict
    assert report.complete
    outputs = model(release.picture[np.newaxis].astype(np.float32), training=False)
    names = {name.removeprefix("output/") for name in release.expected if name.startswith("output/")}
    assert names and names <= outputs.keys()
    for name in names:
        _assert_as_then(np.asarray(outputs[name]), release.expected[f"output/{name}"])


def test_its_checkpoint_and_config_give_the_same_map(release):
    predictor = dk.Predictor.from_checkpoint(dk.load_config(release.config_file), release.checkpoint)
    _assert_same_map(predictor(release.picture).panoptic_map, release.expected["panoptic_map"])


def _export(release) -> str:
    folder = release.folder / "export"
    if not folder.exists():
        pytest.skip("written by the second line of dependencies, without export: the first need not read it")
    return str(folder)


def test_its_export_gives_the_same_map(release):
    predictor = dk.Predictor.from_saved_model(_export(release))
    _assert_same_map(predictor(release.picture).panoptic_map, release.expected["panoptic_map"])


def test_its_export_has_its_signatures(release):
    signatures = tf.saved_model.load(_export(release)).signatures
    picture = tf.constant(release.picture)
    calls = {
        "serving_default": {"input_tensor": picture[np.newaxis]},
        "image": {"input_tensor": picture},
        "encoded": {"encoded": tf.io.encode_png(picture)[np.newaxis]},
    }
    for name, inputs in calls.items():
        maps = signatures[name](**inputs)
        _assert_same_map(maps["panoptic_pred"][0].numpy(), release.expected["panoptic_map"])


@pytest.fixture(scope="module", name="goes_on")
def goes_on_fixture(release) -> tuple[str, str]:
    """Its training, continued by a step: the checkpoint that follows, and what was printed."""
    last = release.step + 1
    solver = "trainer_options.solver_options"
    command = [
        sys.executable,
        str(ROOT / "trainer" / "train.py"),
        f"--config_file={release.config_file}",
        "--mode=train",
        "--model_dir=run",
        f"--override={solver}.training_number_of_steps={last}",
        f"--override=trainer_options.save_checkpoints_steps={last}",
        "--override=trainer_options.num_checkpoints_to_keep=2",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=release.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return str(release.folder / "run" / "release" / f"ckpt-{last}"), done.stdout


def test_its_training_goes_on(release, goes_on):
    """The next step goes as far as it went then, so weights and the optimizer's state are restored."""
    following, printed = goes_on
    assert f"at step {release.step}" in printed
    lengths, expected = length_of_step(release.checkpoint, following), release.expected["length_of_next_step"]
    assert lengths.shape == expected.shape
    # The pictures of a step are drawn at random, and later versions may draw otherwise: that changes the length by a
    # few percent. Without the optimizer's state the step is almost four times as long.
    assert np.linalg.norm(lengths) == pytest.approx(np.linalg.norm(expected), rel=0.3)


def test_all_that_goes_with_the_weights_goes_on(release, goes_on):
    """Loss, averages and each of the optimizer's slots, whichever line of dependencies wrote the checkpoint."""
    following, printed = goes_on
    expected = {key: float(value) for key, value in release.expected.items() if key.startswith("change/")}
    if not expected:
        pytest.skip("this release has not noted it")
    # So close only while the pictures of a step are drawn as they were then; see the test above. The loss is printed
    # with four digits.
    actual = {f"change/{kind}": change for kind, change in changes(release.checkpoint, following).items()}
    assert actual == pytest.approx(expected, rel=1e-3)
    assert loss_of_last_step(printed) == pytest.approx(float(release.expected["loss_of_next_step"]), rel=1e-3)
