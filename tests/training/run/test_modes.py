"""When a run trains and when it evaluates."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from deeplab2_kmax.protos import config_pb2
from deeplab2_kmax.training.run import modes


@pytest.fixture
def what_happens(monkeypatch):
    """(step, has_result) -> what train_and_evaluate does from there, every 10 of 25 steps."""
    config = config_pb2.ExperimentOptions()
    config.evaluator_options.eval_interval = 10

    def from_step(step, has_result):
        done = []
        state = SimpleNamespace(
            config=config,
            folder="",
            total_steps=25,
            global_step=tf.Variable(step, dtype=tf.int64),
            checkpoints=SimpleNamespace(latest_checkpoint=f"ckpt-{step}" if step else None),
            evaluated_averages=None,
        )

        def train_until(run, to):
            done.append(f"train to {to}")
            run.global_step.assign(to)
            run.checkpoints.latest_checkpoint = f"ckpt-{to}"

        def add(path, step, figures):
            assert path == f"ckpt-{step}"
            done.append(f"evaluate {step}")
            filed.results.add(path)

        filed = SimpleNamespace(results={f"ckpt-{step}"} if has_result else set(), add=add)
        filed.figures_of = lambda path: {} if path in filed.results else None
        monkeypatch.setattr(modes, "write_config", lambda config, folder: None)
        monkeypatch.setattr(modes, "train_until", train_until)
        monkeypatch.setattr(modes, "evaluate", lambda run: {})
        monkeypatch.setattr(modes, "_evaluation_results", lambda run: filed)
        modes.train_and_evaluate(state)
        return done

    return from_step


WHOLE = ["train to 10", "evaluate 10", "train to 20", "evaluate 20", "train to 25", "evaluate 25"]


def test_evaluations_interleave_with_training(what_happens):
    assert what_happens(0, has_result=False) == WHOLE


def test_a_run_that_was_stopped_goes_on_where_it_was(what_happens):
    assert what_happens(7, has_result=False) == WHOLE
    assert what_happens(10, has_result=False) == WHOLE[1:]
    assert what_happens(10, has_result=True) == WHOLE[2:]


def test_processes_do_the_same_though_only_one_knows_of_the_result(what_happens, monkeypatch):
    monkeypatch.setattr(modes, "sum_over_workers", lambda values: values + 1)
    assert what_happens(10, has_result=False)[0] == "train to 20"
