"""SIGTERM and Ctrl-C end each command, whatever it is busy with, within seconds and with one line on how to go on.

`pytest -m slow -s <this file>` shows the whole table: both signals, once and twice, in each phase.
"""

import signal
import time

import pytest

from helpers.commands_to_stop import PHASES, Commands, Launcher

STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}
# After a first signal and after a second one. Not for timing: a busy machine has to make it, too.
SECONDS = {1: 60, 2: 30}
# What the table is to show on a machine that does nothing else.
GOAL = {1: 5.0, 2: 1.0}
# Seconds from the beginning of the phase to the signal, in the table.
PAUSES = {signal.SIGTERM: 0.0, signal.SIGINT: 0.2}
# Phases that come again and again are met at one of these times.
TIMES = {"training: a step": 7, "training: a checkpoint": 2, "conversion: a shard": 2, "prediction: a picture": 3}
# With these a command ends; where the machine is slow to send a signal, it comes too late.
LAST = ("evaluation: counting", "conversion: publishing")
# Each phase once in the suite that always runs; most kinds of end are among them.
ALWAYS = (
    ("training: a checkpoint", signal.SIGINT, 1),
    ("evaluation: tracing", signal.SIGTERM, 1),
    ("export: writing", signal.SIGINT, 2),
    ("conversion: a shard", signal.SIGTERM, 1),
)


@pytest.fixture(scope="module", name="commands")
def commands_fixture(tmp_path_factory, tiny_overrides):
    return Commands(tmp_path_factory.mktemp("commands"), tiny_overrides)


@pytest.fixture(scope="module", name="launcher")
def launcher_fixture():
    with Launcher() as launcher:
        yield launcher


def stop(launcher, commands, phase, number, signals, folder, pause=0.0):
    """Stops a command in a phase; returns the seconds from the last of the signals to the end."""
    run = launcher.start(commands, phase, folder)
    assert run.wait_for(phase, TIMES.get(phase, 1)), run.output
    time.sleep(pause)
    for count in range(signals):
        time.sleep(0.1 * count)  # Two signals at the same time count as one.
        sent = time.monotonic()
        run.send(number)
    status = run.end(SECONDS[signals])
    seconds = time.monotonic() - sent
    assert "Traceback" not in run.output and "Exception ignored" not in run.output
    lines = [line for line in run.output.splitlines() if line.startswith("stopped by ")]
    if status in (0, -number) and phase in LAST and not lines:
        return seconds, "(the command had done and said all)"
    assert status == STATUS[number], run.output
    assert len(lines) == 1 and (": " in lines[0]), run.output
    return seconds, lines[0]


@pytest.mark.parametrize(("phase", "number", "signals"), ALWAYS)
def test_signals_end_a_command(launcher, commands, phase, number, signals, tmp_path):
    stop(launcher, commands, phase, number, signals, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("signals", SECONDS)
@pytest.mark.parametrize("number", STATUS, ids=["term", "int"])
@pytest.mark.parametrize("phase", PHASES)
def test_the_whole_table(launcher, commands, phase, number, signals, tmp_path):
    seconds, line = stop(launcher, commands, phase, number, signals, tmp_path, pause=PAUSES[number])
    missed = "" if seconds <= GOAL[signals] else " (late)"
    line = line.replace(str(tmp_path), "...")
    print(f"\n{phase}, {number.name} x {signals}: {seconds:.1f} s{missed}: {line}", end="")
