"""Times of training, measured with a clock that tests put forward."""

import pytest

from deeplab2_kmax.training.reporting.step_clock import LoopTimes, StepClock
from helpers.still_clock import StillClock


@pytest.fixture(name="now")
def now_fixture(monkeypatch):
    return StillClock(monkeypatch)


def loop(clock, now, steps, waiting=1.0, computing=2.0):
    iterator = now.batches(waiting)
    for _ in range(steps):
        assert clock.fetch(iterator) == "batch"
        now.seconds += computing
        clock.on_step()


def test_time_is_split_into_input_steps_and_the_rest(now):
    clock = StepClock(images_per_step=4)
    loop(clock, now, steps=1, computing=100)  # The first step does not count.
    loop(clock, now, steps=2)
    first = clock.end_loop(steps=3)
    assert first == LoopTimes(steps=2, seconds=6.0, images_per_step=4, waiting=2.0, between=0.0)
    now.seconds += 6  # A checkpoint.
    loop(clock, now, steps=3)
    # A sign of life within the loop leaves the checkpoint out.
    assert clock.so_far() == LoopTimes(steps=3, seconds=9.0, images_per_step=4)
    second = clock.end_loop(steps=3)
    assert second is clock.last
    assert second.as_scalars() == pytest.approx(
        {
            "steps_per_second": 0.2,
            "images_per_second": 0.8,
            "seconds_per_step/input": 1.0,
            "seconds_per_step/step": 2.0,
            "seconds_per_step/between_loops": 2.0,
        }
    )


def test_evaluations_do_not_count_but_the_checkpoint_before_them_does(now):
    clock = StepClock()
    loop(clock, now, steps=2)
    clock.end_loop(steps=2)
    now.seconds += 5  # A checkpoint.
    clock.pause()
    now.seconds += 1000  # An evaluation.
    clock.start()
    loop(clock, now, steps=2)
    times = clock.end_loop(steps=2)
    assert (times.seconds, times.waiting, times.between) == (11.0, 2.0, 5.0)
    loop(clock, now, steps=1)
    assert clock.end_loop(steps=1).between == 0.0


def test_where_batches_are_taken_in_the_graph_only_the_speed_is_known(now):
    clock = StepClock(images_per_step=4)
    now.seconds += 10
    times = clock.end_loop(steps=5)
    assert times.as_scalars() == {"steps_per_second": 0.5, "images_per_second": 2.0}
    assert times.waiting_share is None
    assert times.bottleneck() is None


def test_a_loop_with_nothing_but_the_first_step_has_its_speed(now):
    clock = StepClock()
    loop(clock, now, steps=1, waiting=0.0, computing=4)
    times = clock.end_loop(steps=1)
    assert (times.steps_per_second, times.waiting) == (0.25, None)


@pytest.mark.parametrize(
    ("steps", "waiting", "between", "words"),
    [
        (100, 62.0, 0.0, "input-bound: 62 % of the time waiting for data; see deeplab2-kmax benchmark input"),
        (100, 10.0, 40.0, "40 % of the time goes to checkpoints and summaries between loops"),
        (100, 29.0, 29.0, None),
        (9, 62.0, 0.0, None),
    ],
)
def test_what_is_slow_is_said_in_words(steps, waiting, between, words):
    said = LoopTimes(steps, seconds=100.0, waiting=waiting, between=between).bottleneck()
    assert said is None if words is None else said.startswith(words)
