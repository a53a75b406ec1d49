"""Twenty kills at random moments, and one at each moment of writing a checkpoint: `pytest -m slow -s <this file>`."""

import random
import signal
import time

import pytest

from helpers.dying_run import MOMENTS
from helpers.survival_runs import NAME, Process, overrides, require_same, write_records

STEPS, INTERVAL, KILLS, SEED = 600, 5, 20, 20261125
# Seconds between the first step of a process and its end.
LONGEST = 2.0


@pytest.mark.slow
def test_each_restart_resumes_and_the_weights_are_those_of_an_uninterrupted_run(tmp_path, tiny_overrides):
    fields = overrides(write_records(tmp_path), tiny_overrides, STEPS, INTERVAL)
    undisturbed = Process(tmp_path / "undisturbed", fields)
    assert undisturbed.end() == 0, undisturbed.output

    chance, reached, in_writes = random.Random(SEED), 0, 0
    for number in range(KILLS + len(MOMENTS)):
        moment = MOMENTS[number - KILLS] if number >= KILLS else None
        # The first write that this process makes.
        dies = (moment, reached // INTERVAL * INTERVAL + INTERVAL) if moment else None
        if moment:
            run = Process(tmp_path / "killed", fields, dies=dies)
        else:
            run = Process(tmp_path / "killed", fields)
            run.wait_for(r"^step +\d+/")
            time.sleep(chance.uniform(0.0, LONGEST))
            run.send(signal.SIGKILL)
        status = run.end()
        assert status in (-signal.SIGKILL, -signal.SIGXFSZ), run.output
        lost = reached - run.start
        assert 0 <= lost <= INTERVAL, run.output
        in_writes += "left behind" in run.output
        print(
            f"{number + 1}: {moment or 'random'}: went on from {run.start}, lost {lost}, killed after {run.last_step}"
        )
        reached = run.last_step
    assert reached < STEPS, "the run ended before the kills did"

    last = Process(tmp_path / "killed", fields)
    assert last.end() == 0, last.output
    assert 0 <= reached - last.start <= INTERVAL
    print(f"{in_writes} processes found what a write had left behind; the last one went on from {last.start}")
    require_same(tmp_path / "killed" / NAME / f"ckpt-{STEPS}", tmp_path / "undisturbed" / NAME / f"ckpt-{STEPS}")
