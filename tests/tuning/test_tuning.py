"""Tuning on made-up outputs of a network, of which it is known which thresholds are good."""

import dataclasses
import os
import signal
import sys

import numpy as np
import pytest
from google.protobuf import text_format

from deeplab2_kmax import files
from deeplab2_kmax.config import config_to_text, load_config
from deeplab2_kmax.errors import DataError, UserError
from deeplab2_kmax.evaluation.bootstrap import Difference
from deeplab2_kmax.input_pipeline import build_dataset
from deeplab2_kmax.postprocessing import build_postprocessor
from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.tuning import tuning
from deeplab2_kmax.tuning.raw_outputs import RawOutputs, read_outputs, write_outputs
from deeplab2_kmax.tuning.scoring import image_states, result_of
from deeplab2_kmax.tuning.search_space import config_lines, search_space
from helpers import pipeline_records

SIZE, GRID, SLOTS, CLASSES = 33, 17, 6, 8
SKY, CIRCLE = 5, 1
# Of which each half is as many as an interval needs.
IMAGES = 24


@pytest.fixture(scope="module")
def shapes():
    return load_config("shapes/kmax_tiny", ["eval_dataset_options.crop_size=33,33"])


def outputs(number, circle_probability, ghost_probability):
    """An image of sky with a circle that slot 1 finds; slot 2 sees another circle where there is none."""
    y, x = np.mgrid[:SIZE, :SIZE]
    middle = 10 + number % 5
    truth = np.where((y - middle) ** 2 + (x - 10) ** 2 < 49, CIRCLE * 256 + 1, SKY * 256).astype(np.int32)
    masks = np.full((GRID, GRID, SLOTS), -30.0, np.float32)
    rows, columns = np.mgrid[:GRID, :GRID] * 2
    masks[..., 0] = 0
    masks[..., 1] = np.where((rows - middle) ** 2 + (columns - 10) ** 2 < 49, 8, -8)
    masks[..., 2] = np.where((rows > 26) & (columns > 26), 8, -8)
    classes = np.full((SLOTS, CLASSES + 1), -12.0, np.float32)
    classes[:, -1] = 0  # void
    for slot, index, probability in ((0, 4, 0.95), (1, 0, circle_probability), (2, 0, ghost_probability)):
        classes[slot, index] = np.log(probability / (1 - probability))
    return RawOutputs.of_image(f"image {number}", masks, classes, np.array([SIZE, SIZE]), truth)


@pytest.fixture(scope="module")
def timid():
    """Things are found with a probability of 0.4, below the config's threshold of 0.5; ghosts with 0.2."""
    return [outputs(number, 0.4, 0.2) for number in range(IMAGES)]


def test_kept_outputs_lead_to_the_same_maps(shapes):
    random = np.random.default_rng(0)
    masks = 12 * random.standard_normal((GRID, GRID, SLOTS)).astype(np.float32) + 100
    masks[..., 3] -= 200  # A slot that is nowhere near the strongest.
    classes = 4 * random.standard_normal((SLOTS, CLASSES + 1)).astype(np.float32)
    kept = RawOutputs.of_image("a", masks, classes, np.array([SIZE, SIZE]), np.zeros((SIZE, SIZE), np.int32))
    assert 3 not in kept.slots and kept.mask_logits.dtype == np.float16
    loose = load_config(
        "shapes/kmax_tiny",
        [
            "eval_dataset_options.crop_size=33,33",
            "evaluator_options.maskwise_postprocessing.transformer_class_confidence_threshold_thing=0.1",
            "evaluator_options.maskwise_postprocessing.transformer_class_confidence_threshold_stuff=0.1",
        ],
    )
    postprocess = build_postprocessor(loose)
    before = dict(zip(kept.outputs(), (masks, classes)))
    of_before, of_kept = (
        postprocess({name: values[np.newaxis] for name, values in each.items()})["panoptic_pred"].numpy()
        for each in (before, kept.outputs())
    )
    assert len(np.unique(of_before)) > 2
    assert (of_before == of_kept).mean() > 0.995


def test_a_threshold_that_loses_all_things_is_found_and_its_gain_is_that_of_other_images(shapes, timid):
    said = []
    found = tuning.tune(shapes, timid, trials=12, say=said.append)
    assert found.images == (12, 12) and found.is_gain and found.gain.is_shown
    path = "maskwise_postprocessing.transformer_class_confidence_threshold_thing"
    assert found.values[path] <= 0.4
    tuned = config_pb2.ExperimentOptions()
    tuned.CopyFrom(shapes)
    tuned.MergeFrom(text_format.Parse(config_lines(shapes, found.values), config_pb2.ExperimentOptions()))
    # What is printed is what was measured.
    order = np.random.default_rng(0).permutation(IMAGES).tolist()
    held_out = [timid[i] for i in sorted(order[IMAGES // 2 :])]
    for which, quality in zip((shapes, tuned), found.held_out):
        assert result_of(which, image_states(which, held_out)).all.pq == pytest.approx(quality, abs=1e-12)
    report = found.report()
    assert "held out, 12 images" in report and f"{100 * found.held_out[1]:.2f}" in report
    assert report.endswith(config_lines(shapes, found.values))
    flags = [line.split("=", 1)[1] for line in report.splitlines() if line.startswith("--override=")]
    by_flags = load_config("shapes/kmax_tiny", ["eval_dataset_options.crop_size=33,33", *flags])
    assert by_flags.evaluator_options == tuned.evaluator_options
    assert said[0].startswith("trial 1 of 12: PQ ")


def stand_in(monkeypatch, quality_of):
    """Has PQ of image `name` under a config be `quality_of(name, thing threshold)`, without any post-processing."""

    def states(config, images):
        threshold = config.evaluator_options.maskwise_postprocessing.transformer_class_confidence_threshold_thing
        found = np.zeros((len(images), 4, CLASSES))
        found[:, 0, 0] = [quality_of(image.name, threshold) for image in images]
        found[:, 1, 0] = 1
        return found

    monkeypatch.setattr(tuning, "image_states", states)


def test_no_gain_is_said_where_there_is_none(shapes, timid, monkeypatch):
    stand_in(monkeypatch, lambda name, threshold: 0.9 - abs(threshold - 0.5))
    found = tuning.tune(shapes, timid, trials=20, say=lambda line: None)
    assert not found.is_gain and found.gain == Difference(0.0, 0.0, 0.0)
    assert "no gain on the images that were held out" in found.report()
    assert "evaluator_options" not in found.report()


def test_a_gain_on_the_tuned_half_alone_is_no_gain(shapes, timid, monkeypatch):
    on = {timid[i].name for i in np.random.default_rng(0).permutation(IMAGES)[: IMAGES // 2]}
    stand_in(monkeypatch, lambda name, threshold: 0.9 - threshold / 2 if name in on else threshold)
    found = tuning.tune(shapes, timid, trials=20, say=lambda line: None)
    assert found.tuned[1] > found.tuned[0] + 0.1
    assert found.held_out[1] < found.held_out[0] and not found.is_gain
    assert "leave the config as it is" in " ".join(found.report().split())


def test_a_gain_that_few_images_cannot_show_is_told_as_such(shapes, timid, monkeypatch):
    lucky = {timid[i].name for i in np.random.default_rng(0).permutation(IMAGES)[: IMAGES // 2 + 1]}
    stand_in(monkeypatch, lambda name, threshold: 0.9 - threshold / 2 if name in lucky else 0.5)
    found = tuning.tune(shapes, timid, trials=20, say=lambda line: None)
    assert found.is_gain and not found.gain.is_shown
    assert "it holds zero, so more images are" in " ".join(found.report().split())


def test_few_images_that_are_held_out_have_no_interval(shapes, timid, monkeypatch):
    stand_in(monkeypatch, lambda name, threshold: 0.9 - threshold / 2)
    found = tuning.tune(shapes, timid[:2], trials=20, say=lambda line: None)
    report = " ".join(found.report().split())
    assert found.is_gain and not found.gain.is_shown and "no interval, as fewer than 10 images" in report
    assert "nan" not in report


def test_a_stopped_search_tells_the_best_until_then_without_a_traceback(shapes, timid, monkeypatch, capfd):
    calls = []

    def quality(name, threshold):
        calls.append(name)
        if len(calls) == 5 * IMAGES // 2:
            os.kill(os.getpid(), signal.SIGINT)
        return 0.9 - threshold / 2

    stand_in(monkeypatch, quality)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        tuning.tune(shapes, timid, trials=1000, say=said.append)
    assert "the best of 5 trials, when the search was stopped" in said[-1] and "held out, 12 images" in said[-1]
    assert "Traceback" not in capfd.readouterr().err


def test_pixel_wise_post_processing_has_its_own_fields(shapes):
    pixelwise = load_config("shapes/kmax_tiny", ["evaluator_options.transformer_post_processing=pixelwise"])
    paths = {each.path for each in search_space(pixelwise)}
    assert paths == {
        "pixel_confidence_threshold",
        "transformer_class_confidence_threshold",
        "thing_area_limit",
        "stuff_area_limit",
    }
    for dimension in (*search_space(pixelwise), *search_space(shapes)):
        steps = (dimension.high - dimension.low) / dimension.step
        assert steps == pytest.approx(round(steps)), dimension


@pytest.mark.parametrize("remote", [False, True])
def test_outputs_in_a_folder(tmp_path, timid, remote):
    folder = "ram://tuning" if remote else str(tmp_path / "outputs")
    about = {"checkpoint": "abc", "settings": "def", "most_images": 500}
    assert read_outputs(folder, about) is None
    write_outputs(folder, timid[:2], about)
    for before, after in zip(timid, read_outputs(folder, about)):
        assert before.name == after.name
        np.testing.assert_array_equal(before.mask_logits, after.mask_logits)
        np.testing.assert_array_equal(before.truth, after.truth)
    with pytest.raises(UserError, match="checkpoint 'other', got those with 'abc'"):
        read_outputs(folder, {**about, "checkpoint": "other"})
    # Fewer than are kept are the first of them; more cannot be had where as many were kept as were asked for.
    assert len(read_outputs(folder, {**about, "most_images": 1})) == 1
    cut = files.join(folder, "cut")
    write_outputs(cut, timid[:2], {**about, "most_images": 2})
    with pytest.raises(UserError, match="--images: expected at most 2, as many as .*cut keeps; got 500"):
        read_outputs(cut, about)
    broken = dataclasses.replace(timid[0], class_logits=np.full_like(timid[0].class_logits, np.nan))
    write_outputs(cut, [timid[1], broken], about)
    with pytest.raises(DataError, match="000001.npz: expected finite numbers in class_logits"):
        read_outputs(cut, about)
    files.write_bytes(files.join(folder, "000001.npz"), b"PK no more")
    with pytest.raises(DataError, match="000001.npz: expected the raw outputs"):
        read_outputs(folder, about)
    files.write_text(files.join(folder, "raw_outputs.json"), "[]")
    with pytest.raises(DataError, match="choose another folder"):
        read_outputs(folder, about)


def test_what_cannot_be_tuned_is_refused(shapes, timid, monkeypatch):
    with pytest.raises(DataError, match="at least two images"):
        tuning.tune(shapes, timid[:1])
    with pytest.raises(UserError, match="--trials: expected a number from 1, got 0"):
        tuning.tune(shapes, timid, trials=0)
    for seed in (-1, 2**32):
        with pytest.raises(UserError, match=f"--seed: expected a number from 0 to 4294967295, got {seed}"):
            tuning.tune(shapes, timid, seed=seed)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'deeplab2_kmax\[tune\]'"):
        tuning.tune(shapes, timid)


def test_from_checkpoint_to_config_lines(capsys, monkeypatch, tmp_path, config, checkpoint, model):
    """The command on three records: outputs are those of the model, and the second search does not run it again."""
    from deeplab2_kmax.cli import main as command
    from deeplab2_kmax.tuning import network_outputs

    records = [pipeline_records.record(40 + n, 65, f"image {n}", seed=n) for n in range(3)]
    pattern = pipeline_records.write(tmp_path / "val.tfrecord", records)
    own = config_pb2.ExperimentOptions()
    own.CopyFrom(config)
    own.eval_dataset_options.file_pattern[:] = [pattern]
    said: list[str] = []
    kept = network_outputs.network_outputs(own, checkpoint, str(tmp_path / "kept"), 500, said.append)
    assert [each.name for each in kept] == ["image 0", "image 1", "image 2"]
    assert [each.truth.shape for each in kept] == [(40, 65), (41, 65), (42, 65)]
    batch = next(iter(build_dataset(own.eval_dataset_options, is_training=False)))
    expected = model(batch["image"], training=False)
    for index, image in enumerate(kept):
        masks, classes = image.outputs().values()
        plain = expected["pixel_space_mask_logits"][index].numpy()
        np.testing.assert_allclose(masks, np.maximum(plain - plain.max(-1, keepdims=True), -60), atol=0.5)
        np.testing.assert_allclose(classes, expected["transformer_class_logits"][index], rtol=1e-2)

    (tmp_path / "my.textproto").write_text(config_to_text(own))
    monkeypatch.setattr(network_outputs, "_run", None)
    arguments = [f"--config_file={tmp_path / 'my.textproto'}", f"--checkpoint={checkpoint}", "--trials=1"]
    with pytest.raises(SystemExit) as ended:
        command.main(["tune-postprocessing", *arguments, f"--outputs={tmp_path / 'kept'}"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "raw outputs of 3 images are there already" in printed and "no gain on the images" in printed


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--seed=-1"], "--seed: expected a number from 0"),
        (["--images=1"], "--images: expected a number from 2, as one half is held out; got 1"),
        ([], "no such file"),
    ],
)
def test_mistakes_end_in_one_line(capsys, flags, message):
    from deeplab2_kmax.cli import main as command

    with pytest.raises(SystemExit) as ended:
        command.main(["tune-postprocessing", "--config_file=nowhere.textproto", "--checkpoint=nowhere", *flags])
    assert message in str(ended.value.code)
