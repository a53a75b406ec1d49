"""Forty kills at random moments of all commands: `pytest -m slow -s <this file>`.

After each kill the same command starts again, to be killed once more or, after the last kill of its kind, to run to its
end. What it leaves then is what an undisturbed run leaves.
"""

import json
import math
import random
import re
import shutil
import signal
import time

import pytest

from helpers.commands_to_stop import PHASES, Commands, Launcher
from helpers.survival_runs import values

SEED, STEPS = 20261129, 12
# How often each phase is where a killed command has got to; the kill comes between its beginning and the command's end.
KILLS = {
    "training: a step": 2,
    "training: a checkpoint": 4,
    "evaluation: counting": 5,
    "export: building": 1,
    "export: tracing": 2,
    "export: writing": 6,
    "conversion: a shard": 6,
    "conversion: by two processes": 2,
    "conversion: publishing": 2,
    "checkpoint conversion: building": 1,
    "checkpoint conversion: writing": 5,
    "prediction: a picture": 4,
}
COMMANDS = sorted({PHASES[phase][0] for phase in KILLS})
# Of the writers of temporary files: TensorFlow's checkpoints, exports, conversions, `files.py`.
_TEMPORARY = re.compile(r"_temp|\.tmp|\.old|\.unfinished|\.part$|tempstate|export\.\w{8}\.")
# Each process adds a log; locks name the process that had them last, and the state file when it was written.
_OWN = re.compile(r"events\.out\.tfevents|\.lock|/checkpoint$|output\.txt|/announcements$")


def left(folder):
    """{path below the folder: content} of what a command has left, without what differs from process to process."""
    found = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        name = path.relative_to(folder).as_posix()
        if _OWN.search(f"/{name}"):
            continue
        if path.suffix == ".index":  # Their bytes hold a count of writes.
            found[name] = {key: value.tobytes() for key, value in values(path.with_suffix("")).items()}
        elif ".data-" in name:
            found[name] = "read with its index"
        elif path.suffix == ".pb":  # TensorFlow orders the nodes of a graph differently in each process.
            found[name] = path.stat().st_size > 0
        elif path.name.startswith("metrics-"):
            found[name] = _without_paths_and_times(json.loads(path.read_text()), folder)
        else:
            found[name] = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
    return found


def _without_paths_and_times(content, folder):
    text = json.dumps({key: value for key, value in content.items() if "second" not in key and "time" not in key})
    return json.loads(text.replace(str(folder), "FOLDER"))


def same(value, other):
    """Whether two contents are the same; losses are sums over threads, whose order is not always the same."""
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(same(value[key], other[key]) for key in value)
    if isinstance(value, float):
        return math.isclose(value, other, rel_tol=1e-4)
    return value == other


def test_they_are_forty():
    assert sum(KILLS.values()) == 40


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_killed_command_leaves_is_mended_by_the_same_command(command, tmp_path, tiny_overrides):
    commands = Commands(tmp_path, tiny_overrides, steps=STEPS, scenes=800, pictures=20)
    chance = random.Random(f"{SEED} {command}")
    phases = {phase: kills for phase, kills in KILLS.items() if PHASES[phase][0] == command}
    with Launcher() as launcher:
        whole = tmp_path / "undisturbed"
        whole.mkdir()
        run = launcher.start(commands, next(iter(phases)), whole)
        assert run.wait_for("the end")
        assert run.end() == 0, run.output
        undisturbed, end = left(whole), run.begun["the end"]
        seconds = {phase: end - run.begun[phase] for phase in phases}
        for phase, kills in phases.items():
            folder = tmp_path / phase.replace(": ", " ")
            folder.mkdir()
            for kill in range(kills):
                while not (run := launcher.start(commands, phase, folder)).wait_for(phase):
                    # The last kill came when all was done: begin anew.
                    _require_as_undisturbed(run, command, folder, undisturbed)
                    shutil.rmtree(folder)
                    folder.mkdir()
                _kill(run, phase, folder, chance.uniform(0.0, seconds[phase]), f"{kill + 1} of {kills}")
            run = launcher.start(commands, phase, folder)
            _require_as_undisturbed(run, command, folder, undisturbed)
            print(f"{phase}: {len(undisturbed)} files as those of an undisturbed run, nothing beside them", flush=True)


def _kill(run, phase, folder, moment, which):
    """Kills a command at a moment after the phase began; prints where it fell."""
    time.sleep(moment)
    run.send(signal.SIGKILL)
    status = run.end()
    assert status in (0, -signal.SIGKILL), run.output
    how = "killed" if status else "ended before it was killed"
    unfinished = ", ".join(_unfinished(folder)) or "nothing"
    print(f"{which}: {how}, {moment:.2f} s after the beginning of {phase}; unfinished: {unfinished}", flush=True)


def _require_as_undisturbed(run, command, folder, undisturbed):
    """Lets a command end, and checks that its folder is as that of one that was not disturbed."""
    # A conversion that a kill came too late for lets its checkpoint be.
    keeps = command == "convert-checkpoint" and "converted/ckpt.textproto exists already"
    assert run.end() == 0 or (keeps and keeps in run.output), run.output
    kept = left(folder)
    assert kept.keys() == undisturbed.keys()
    differ = [path for path, value in kept.items() if not same(value, undisturbed[path])]
    assert not differ, differ
    assert not _unfinished(folder)


def _unfinished(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if _TEMPORARY.search(path.name))
