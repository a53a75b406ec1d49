"""Each checkpoint is evaluated once, and the best is kept, whatever the trainer deletes meanwhile."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from deeplab2_kmax import files
from deeplab2_kmax.checkpoints.files import fingerprint, link_checkpoint
from deeplab2_kmax.errors import CheckpointError, ConfigError
from deeplab2_kmax.folder_lock import hold_lock
from deeplab2_kmax.training.checkpoints.best_checkpoint import BestCheckpoint
from deeplab2_kmax.training.evaluating import continuous_evaluation
from deeplab2_kmax.training.evaluating.continuous_evaluation import evaluate_continuously
from deeplab2_kmax.training.evaluating.evaluation_results import EvaluationResults, settings_fingerprint

PQ = "evaluation/pq/PQ"
LOSS = "losses/eval_total_loss"


class Run:
    """A run that trains one weight, whose value is its quality."""

    def __init__(self, folder, keep=5):
        self.folder = str(folder)
        self.weight = tf.Variable(0.0)
        self.global_step = tf.Variable(0, dtype=tf.int64)
        self.checkpoint = tf.train.Checkpoint(weight=self.weight, global_step=self.global_step)
        self.manager = tf.train.CheckpointManager(
            self.checkpoint, self.folder, max_to_keep=keep, step_counter=self.global_step
        )
        self.evaluated = []

    def write(self, step, quality):
        self.global_step.assign(step)
        self.weight.assign(quality)
        return self.manager.save(checkpoint_number=step)

    def evaluate(self, path):
        reader = tf.train.load_checkpoint(path)
        value = float(reader.get_tensor("weight/.ATTRIBUTES/VARIABLE_VALUE"))
        self.evaluated.append(int(reader.get_tensor("global_step/.ATTRIBUTES/VARIABLE_VALUE")))
        return {PQ: value, LOSS: 1 - value, "evaluation/pq_things/PQ": float("nan")}

    def results(self, metric=PQ, settings="as always"):
        return EvaluationResults(self.folder, metric, (PQ, LOSS), settings)

    def evaluate_all(self, last_step=1000, timeout=0.0, evaluate=None):
        return evaluate_continuously(self.folder, evaluate or self.evaluate, self.results(), last_step, timeout)

    def best(self):
        path = tf.train.latest_checkpoint(os.path.join(self.folder, "best"))
        reader = tf.train.load_checkpoint(path)
        return os.path.basename(path), pytest.approx(float(reader.get_tensor("weight/.ATTRIBUTES/VARIABLE_VALUE")))

    def record(self):
        return [json.loads(line) for line in self.read("eval/results.jsonl").splitlines()]

    def read(self, name):
        return pathlib.Path(self.folder, name).read_text()


@pytest.fixture
def a_run(tmp_path):
    return Run(tmp_path / "run")


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(continuous_evaluation, "_POLL_SECONDS", 0.001)


def test_each_checkpoint_is_evaluated_once_and_the_best_is_kept(a_run, capsys):
    for step, quality in ((10, 0.25), (20, 0.75), (30, 0.5)):
        a_run.write(step, quality)
    figures = a_run.evaluate_all(last_step=30)
    assert a_run.evaluated == [10, 20, 30]
    assert figures[PQ] == 0.5
    assert a_run.best() == ("ckpt-20", 0.75)
    facts = json.loads(a_run.read("best/best.json"))
    assert (facts["step"], facts["metric"], facts["figures"][PQ]) == (20, PQ, 0.75)
    assert [(line["step"], line["checkpoint"], line["figures"][PQ]) for line in a_run.record()] == [
        (10, "ckpt-10", 0.25), (20, "ckpt-20", 0.75), (30, "ckpt-30", 0.5)
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert "step 30 is the last one\n3 checkpoints evaluated\nbest: PQ 75.00 at step 20, kept as " in said
    # Nothing of the others is left, and the trainer's folder is as it was.
    assert sorted(os.listdir(os.path.join(a_run.folder, "best"))) == [
        "best.json", "checkpoint", "ckpt-20.data-00000-of-00001", "ckpt-20.index"
    ]  # fmt: skip
    assert not os.path.exists(os.path.join(a_run.folder, "eval/held"))


def test_another_process_goes_on_where_one_stopped(a_run, capsys):
    a_run.write(10, 0.5)
    a_run.evaluate_all()
    a_run.write(20, 0.25)
    again = Run(a_run.folder)
    figures = again.evaluate_all(last_step=20)
    assert again.evaluated == [20]
    assert figures[PQ] == 0.25
    assert again.best() == ("ckpt-10", 0.5)
    assert "ckpt-10 has its result already" in capsys.readouterr().out
    third = Run(a_run.folder)
    assert third.evaluate_all(last_step=20)[PQ] == 0.25
    assert third.evaluated == []
    said = capsys.readouterr().out
    assert "0 checkpoints evaluated, results of 2 were there already\nbest: PQ 50.00 at step 10" in said


def test_a_checkpoint_written_anew_counts_as_another_only_if_it_differs(a_run):
    a_run.write(10, 0.5)
    a_run.evaluate_all()
    path = a_run.checkpoint.write(os.path.join(a_run.folder, "ckpt-10"))
    a_run.evaluate_all()
    assert a_run.evaluated == [10]
    a_run.weight.assign(0.75)
    a_run.checkpoint.write(path)
    a_run.evaluate_all()
    assert a_run.evaluated == [10, 10]
    assert a_run.best() == ("ckpt-10", 0.75)


def test_no_new_checkpoint_ends_it_in_time(a_run, no_pause, capsys):
    assert a_run.evaluate_all(timeout=0.02) == {}
    assert "no new checkpoint within 0 s\n0 checkpoints evaluated\nbest: none" in capsys.readouterr().out


def test_checkpoints_that_appear_during_an_evaluation_come_next(a_run, no_pause):
    a_run.write(10, 0.5)

    def slow(path):
        figures = a_run.evaluate(path)
        if a_run.evaluated == [10]:
            a_run.write(20, 0.25)
            a_run.write(30, 0.25)
        return figures

    a_run.evaluate_all(last_step=30, timeout=None, evaluate=slow)
    assert a_run.evaluated == [10, 20, 30]


def test_the_trainer_may_delete_what_is_being_evaluated(tmp_path, no_pause):
    run = Run(tmp_path / "run", keep=1)
    run.write(10, 0.75)

    def slow(path):
        if not run.evaluated:
            run.write(20, 0.5)
            assert not tf.io.gfile.glob(os.path.join(run.folder, "ckpt-10.*"))
        return run.evaluate(path)

    run.evaluate_all(last_step=20, evaluate=slow)
    assert run.evaluated == [10, 20]
    assert run.best() == ("ckpt-10", 0.75)


@pytest.mark.parametrize("gone", ["ckpt-10.index", "ckpt-10.data-00000-of-00001"])
def test_a_checkpoint_deleted_before_it_is_read_is_skipped(a_run, gone, capsys):
    a_run.write(10, 0.5)
    a_run.write(20, 0.5)
    os.unlink(os.path.join(a_run.folder, gone))
    a_run.evaluate_all(last_step=20)
    assert a_run.evaluated == [20]
    assert capsys.readouterr().out.count("ckpt-10 skipped: deleted before it could be read\n") == 1


def test_a_checkpoint_deleted_between_its_two_files_is_skipped(a_run, monkeypatch, capsys):
    a_run.write(10, 0.5)
    a_run.write(20, 0.5)
    link_or_copy = files.link_or_copy

    def and_then_delete(source, target):
        link_or_copy(source, target)
        if "ckpt-10.data" in source:
            os.unlink(source)
            os.unlink(os.path.join(a_run.folder, "ckpt-10.index"))

    monkeypatch.setattr(files, "link_or_copy", and_then_delete)
    a_run.evaluate_all(last_step=20)
    assert a_run.evaluated == [20]
    assert "ckpt-10 skipped: deleted before it could be read\n" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_skipped_with_what_is_wrong(a_run, capsys):
    path = pathlib.Path(a_run.write(10, 0.5) + ".data-00000-of-00001")
    a_run.write(20, 0.5)
    path.write_bytes(bytes(byte ^ 255 for byte in path.read_bytes()))
    a_run.evaluate_all(last_step=20)
    assert a_run.evaluated == [20]
    assert "ckpt-10 skipped: " in capsys.readouterr().out


def test_a_second_evaluation_of_the_same_run_is_refused(a_run):
    os.makedirs(os.path.join(a_run.folder, "eval"))
    refused = pytest.raises(ConfigError, match=r"process \d+ on .* evaluates the checkpoints of .*run already")
    with hold_lock(os.path.join(a_run.folder, "eval/.lock")), refused:
        a_run.evaluate_all()


def test_errors_of_an_evaluation_pass_and_leave_no_result(a_run):
    a_run.write(10, 0.5)

    def broken(path):
        raise CheckpointError("does not fit")

    with pytest.raises(CheckpointError, match="does not fit"):
        a_run.evaluate_all(evaluate=broken)
    a_run.evaluate_all()
    assert a_run.evaluated == [10]


def test_a_line_cut_short_costs_only_itself(a_run):
    first, second = a_run.write(10, 0.5), a_run.write(20, 0.5)
    a_run.evaluate_all()
    path = os.path.join(a_run.folder, "eval/results.jsonl")
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 20)
    results = a_run.results()
    assert results.figures_of(first)[PQ] == 0.5
    assert results.figures_of(second) is None
    results.add(second, 20, {PQ: 0.25})
    assert a_run.results().figures_of(first)[PQ] == 0.5
    assert a_run.results().figures_of(second)[PQ] == 0.25


@pytest.mark.parametrize("key, value", [("fingerprint", []), ("settings", {}), ("figures", 3)])
def test_a_line_of_other_types_costs_only_itself(a_run, key, value):
    path = a_run.write(10, 0.5)
    a_run.results().add(path, 10, {PQ: 0.5})
    files.append_line(os.path.join(a_run.folder, "eval/results.jsonl"), json.dumps({**a_run.record()[0], key: value}))
    assert a_run.results().figures_of(path) == {PQ: 0.5}


def test_results_under_other_settings_do_not_count(a_run):
    path = a_run.write(10, 0.5)
    quick = a_run.results(settings="two images")
    quick.add(path, 10, {PQ: 0.9})
    results = a_run.results()
    assert results.figures_of(path) is None
    assert results.best.step == 10  # It stays,
    results.add(a_run.write(20, 0.25), 20, {PQ: 0.25})
    assert results.best.step == 20  # but has nothing to be compared with.
    assert a_run.results(settings="two images").figures_of(path) == {PQ: 0.9}


def test_a_best_checkpoint_under_other_settings_is_told_without_a_figure(a_run, capsys):
    a_run.results(settings="two images").add(a_run.write(10, 0.5), 10, {PQ: 0.9})
    for index in pathlib.Path(a_run.folder).glob("ckpt-10.*"):
        index.unlink()
    pathlib.Path(a_run.folder, "checkpoint").unlink()
    a_run.evaluate_all()
    assert f"\nbest: step 10, kept as {a_run.folder}/best/ckpt-10, chosen under other" in capsys.readouterr().out


def test_settings_are_what_figures_depend_on(tiny_config):
    def changed(**fields):
        config = type(tiny_config).FromString(tiny_config.SerializeToString())
        for name, value in fields.items():
            setattr(config.evaluator_options, name, value)
        return settings_fingerprint(config)

    assert changed(eval_interval=7, continuous_eval_timeout=7, num_summary_images=7) == settings_fingerprint(
        tiny_config
    )
    assert changed(eval_steps=7) != changed()
    assert changed(use_averaged_weights=True) != changed()


def test_equal_and_undefined_figures_are_no_better(a_run):
    best = BestCheckpoint(a_run.folder, PQ)
    assert not best.offer(a_run.write(10, 0.5), 10, {PQ: float("nan")})
    assert best.path is None
    assert best.offer(a_run.write(20, 0.5), 20, {PQ: 0.5})
    assert not best.offer(a_run.write(30, 0.5), 30, {PQ: 0.5})
    assert best.step == 20


def test_the_best_by_a_loss_is_the_lowest(a_run):
    best = BestCheckpoint(a_run.folder, LOSS)
    for step, value in ((10, 0.5), (20, 0.25), (30, 0.75)):
        best.offer(a_run.write(step, value), step, {LOSS: value})
    assert best.step == 20
    assert BestCheckpoint(a_run.folder, LOSS).value == 0.25


def test_an_interrupted_change_of_the_best_leaves_the_old_one(a_run, monkeypatch):
    best = BestCheckpoint(a_run.folder, PQ)
    best.offer(a_run.write(10, 0.25), 10, {PQ: 0.25})
    link_checkpoint(a_run.write(20, 0.5), best.folder)  # And then the process is killed.
    again = BestCheckpoint(a_run.folder, PQ)
    assert again.step == 10
    assert a_run.best() == ("ckpt-10", 0.25)
    again.offer(os.path.join(a_run.folder, "ckpt-20"), 20, {PQ: 0.5})
    assert a_run.best() == ("ckpt-20", 0.5)
    assert not tf.io.gfile.glob(os.path.join(best.folder, "*ckpt-10*"))
    assert not tf.io.gfile.glob(os.path.join(best.folder, "*.part"))


def test_a_moved_run_finds_its_best(a_run, tmp_path):
    BestCheckpoint(a_run.folder, PQ).offer(a_run.write(10, 0.25), 10, {PQ: 0.25})
    shutil.move(a_run.folder, tmp_path / "elsewhere")
    moved = BestCheckpoint(str(tmp_path / "elsewhere"), PQ)
    assert tf.train.latest_checkpoint(moved.folder) == moved.path


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"checkpoint": "ckpt-1"}',
        '{"checkpoint": "../ckpt-1", "step": 1, "figures": {}}',
        '{"checkpoint": "ckpt-1", "step": 1, "figures": {"evaluation/pq/PQ": "high"}}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_none_of_ours_is_not_overwritten(a_run, content):
    os.makedirs(os.path.join(a_run.folder, "best"))
    with open(os.path.join(a_run.folder, "best/best.json"), "w") as file:
        file.write(content)
    with pytest.raises(CheckpointError, match="best.json is not what this program writes there"):
        BestCheckpoint(a_run.folder, PQ)


def test_unknown_metrics_are_refused_with_the_known_ones(a_run):
    with pytest.raises(ConfigError, match=r"best_checkpoint_metric: expected one of evaluation/pq/PQ, .*; got 'PQ'"):
        a_run.results("PQ")
    assert a_run.results("").best is None


def test_without_hard_links_checkpoints_are_copied(a_run, tmp_path, monkeypatch):
    path = a_run.write(10, 0.5)

    def none_here(source, target):
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", none_here)
    copy = link_checkpoint(path, str(tmp_path / "copies"))
    assert fingerprint(copy) == fingerprint(path)
    np.testing.assert_array_equal(a_run.evaluate(copy)[PQ], 0.5)
    assert not os.path.samefile(f"{copy}.index", f"{path}.index")
