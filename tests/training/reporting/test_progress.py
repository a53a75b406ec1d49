"""What training says."""

import re
import sys

import orbit.controller
import pytest
import tensorflow as tf

from deeplab2_kmax.training.reporting import progress
from deeplab2_kmax.training.reporting.progress import Progress, duration, quiet_orbit, rate
from deeplab2_kmax.training.reporting.step_clock import StepClock
from helpers.still_clock import StillClock

LOGS = {
    "losses/train_pq_style_loss_class_term": 1.25,
    "losses/train_aux_0pq_style_loss_class_term": 9.75,
    "losses/train_total_loss": 11.0,
    "gradient_norm": 3.0,
    "learning_rate": 5e-4,
}


@pytest.fixture(name="clock")
def clock_fixture(monkeypatch):
    return StillClock(monkeypatch)


@pytest.fixture
def run(clock):
    """A function that makes steps of a loop: the progress hears of them, and the global step counts them."""

    def steps_of(progress, step, steps, waiting=0.0, computing=1.0):
        iterator = clock.batches(waiting)
        for _ in range(steps):
            progress.clock.fetch(iterator)
            clock.seconds += computing
            progress.on_step()
        step.assign_add(steps)

    return steps_of


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (18720, "5 h 12 min"), (183600, "2 d 3 h")],
)
def test_durations_read_naturally(seconds, text):
    assert duration(seconds) == text


def test_slow_steps_are_given_in_seconds():
    assert rate(2.125) == "2.12 step/s"
    assert rate(0.25) == "4 s/step"


def test_a_line_says_step_speed_loss_rate_and_time_left(clock, run, capsys):
    step = tf.Variable(99, dtype=tf.int64)
    line = Progress(step, total_steps=1000, clock=StepClock(images_per_step=8))
    run(line, step, steps=1, computing=30)  # The first step optimizes the graph; it does not count.
    run(line, step, steps=10, waiting=0.5, computing=1.5)
    line(LOGS)
    said = capsys.readouterr().out
    assert said == (
        "step  110/1000 | loss 11 | lr 0.0005 | 0.5 step/s | 29 min 40 s left\n"
        "    4 images/s | 25 % waiting for input | class 1.25\n"
    )


def test_without_room_the_terms_get_a_line_of_their_own(clock, run, capsys, monkeypatch):
    terms = ("semantic_loss", "pq_style_loss_mask_dice_term", "mask_id_cross_entropy_loss")
    logs = {**LOGS, **{f"losses/train_{name}": 1.2345 for name in terms}, "skipped_steps": 3}

    def said_in(columns):
        monkeypatch.setattr(progress, "_LOG_WIDTH", columns)
        step = tf.Variable(0, dtype=tf.int64)
        line = Progress(step, total_steps=150000, clock=StepClock(images_per_step=64))
        run(line, step, steps=11, waiting=0.25, computing=0.75)
        line(logs)
        return re.sub(r"until \w+ \d\d:\d\d", "until DAY TIME", capsys.readouterr().out).splitlines()

    first = "step     11/150000 | loss 11 | lr 0.0005 | 1 step/s | 64 images/s"
    second = "    class 1.25 | semantic 1.234 | dice 1.234 | mask id 1.234"
    assert said_in(150) == [
        f"{first} | 25 % waiting for input | 3 steps skipped | 1 d 17 h left (until DAY TIME)", second
    ]  # fmt: skip
    assert said_in(120) == [f"{first} | input 25 % | 3 steps skipped | 1 d 17 h left", second]
    assert said_in(70) == [
        "step     11/150000 | loss 11 | lr 0.0005 | 1 step/s | 1 d 17 h left",
        "    64 images/s | 25 % waiting for input | 3 steps skipped",
        second,
    ]


def test_a_loop_of_one_step_has_a_speed_too(clock, run, capsys):
    step = tf.Variable(0, dtype=tf.int64)
    line = Progress(step, total_steps=2)
    run(line, step, steps=1, computing=4)
    line(LOGS)
    assert "step 1/2 | loss 11 (class 1.25) | lr 0.0005 | 4 s/step | 4 s left" in capsys.readouterr().out


def test_an_input_that_is_too_slow_is_named_once(clock, run, capsys):
    step = tf.Variable(0, dtype=tf.int64)
    line = Progress(step, total_steps=1000)
    for waiting, named in ((0.0, False), (1.6, True), (1.6, False), (0.0, False), (1.6, True)):
        run(line, step, steps=20, waiting=waiting)
        line(LOGS)
        said = " ".join(capsys.readouterr().out.split())
        note = "note: input-bound: 62 % of the time waiting for data; see deeplab2-kmax benchmark input"
        assert (note in said) == named


def test_long_loops_show_signs_of_life(clock, capsys):
    line = Progress(tf.Variable(0, dtype=tf.int64), total_steps=1000)
    line.on_step()  # The first one does not count.
    for _ in range(100):
        clock.seconds += 1
        line.on_step()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert re.fullmatch(r"step   61/1000 \| 1 step/s \| 15 min 39 s left", said[0])


def test_on_a_terminal_signs_of_life_fit_and_are_overwritten(clock, run, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    step = tf.Variable(0, dtype=tf.int64)
    line = Progress(step, total_steps=150000)
    run(line, step, steps=2)
    line(LOGS)
    erased, *overwritten = capsys.readouterr().out.split("\r\x1b[K")
    assert erased == ""
    assert overwritten == [
        "step      2/150000 | 1 step/s | 1 d 17 ",
        "step      2/150000 | loss 11\n    lr 0.0005 | 1 step/s\n    1 d 17 h left\n"
        "    0 % waiting for input | class 1.25\n",
    ]


def test_weights_that_are_not_trained_are_named(capsys):
    line = Progress(tf.Variable(0, dtype=tf.int64), total_steps=10)
    line.on_traced(61.0, ["head/kernel:0"])
    said = capsys.readouterr().out
    assert "built in 1 min 1 s" in said
    assert "1 weight has no part in the loss and is not trained: head/kernel:0" in said


def test_orbit_is_silent_only_within(capsys):
    with quiet_orbit():
        orbit.controller._log("chatter")
    orbit.controller._log("its own line")
    assert capsys.readouterr().out == "its own line\n"
