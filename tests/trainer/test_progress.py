"""What training says."""

import re

import orbit.controller
import pytest
import tensorflow as tf

from deeplab2_kmax.trainer import progress
from deeplab2_kmax.trainer.progress import Progress, duration, quiet_orbit, rate

LOGS = {
    "losses/train_pq_style_loss_class_term": 1.25,
    "losses/train_aux_0pq_style_loss_class_term": 9.75,
    "losses/train_total_loss": 11.0,
    "gradient_norm": 3.0,
    "learning_rate": 5e-4,
}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is told to go on."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (18720, "5 h 12 min"), (183600, "2 d 3 h")],
)
def test_durations_read_naturally(seconds, text):
    assert duration(seconds) == text


def test_slow_steps_are_given_in_seconds():
    assert rate(2.125) == "2.12 step/s"
    assert rate(0.25) == "4 s/step"


def test_a_line_says_step_speed_loss_rate_and_time_left(clock, capsys):
    step = tf.Variable(100, dtype=tf.int64)
    line = Progress(step, total_steps=1000)
    clock.now += 50  # The first step optimizes the graph; it does not count.
    line.on_step()
    clock.now += 18
    step.assign(110)
    line(LOGS)
    said = capsys.readouterr().out
    assert said.startswith("step  110/1000 | 0.5 step/s | loss 11 (class 1.25) | lr 0.0005 | 29 min 40 s left")
    assert "9.75" not in said


def test_a_loop_of_one_step_has_a_speed_too(clock, capsys):
    step = tf.Variable(0, dtype=tf.int64)
    line = Progress(step, total_steps=2)
    clock.now += 4
    line.on_step()
    step.assign(1)
    line(LOGS)
    assert "step 1/2 | 4 s/step |" in capsys.readouterr().out


def test_long_loops_show_signs_of_life(clock, capsys):
    line = Progress(tf.Variable(0, dtype=tf.int64), total_steps=1000)
    line.on_step()
    for _ in range(100):
        clock.now += 1
        line.on_step()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert re.fullmatch(r"step   61/1000 \| 1 step/s \| 15 min 39 s left", said[0])


def test_weights_that_are_not_trained_are_named(capsys):
    line = Progress(tf.Variable(0, dtype=tf.int64), total_steps=10)
    line.on_traced(61.0, ["head/kernel:0"])
    said = capsys.readouterr().out
    assert "built in 1 min 1 s" in said and "1 weights have no part in the loss" in said and "head/kernel:0" in said


def test_orbit_is_silent_only_within(capsys):
    with quiet_orbit():
        orbit.controller._log("chatter")
    orbit.controller._log("its own line")
    assert capsys.readouterr().out == "its own line\n"
