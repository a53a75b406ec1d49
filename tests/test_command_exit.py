"""How commands end: one line for mistakes, signals and a standard output that cannot be written."""

import os
import pathlib
import subprocess
import sys

import pytest

from deeplab2_kmax.command_exit import one_line_for_errors
from deeplab2_kmax.errors import UserError
from deeplab2_kmax.terminal import ERASE_LINE

ROOT = pathlib.Path(__file__).parents[1]
LONG = "one of the words " * 20
FULL = pathlib.Path("/dev/full")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_errors_are_broken_at_spaces_on_a_terminal_only(monkeypatch, is_terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    assert os.environ["COLUMNS"] == "60"
    with pytest.raises(SystemExit) as end, one_line_for_errors():
        raise UserError(f"{LONG}\n    with a list")
    lines = str(end.value.code).splitlines()
    assert lines[0].startswith("error: one of") and lines[-1].strip() == "with a list"
    if is_terminal:
        assert len(lines) > 5 and max(map(len, lines)) <= 60
    else:
        assert len(lines) == 2


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "deeplab2_kmax", *words]


PRINTING = {
    "help": _command("--help"),
    "config": _command("config", "coco/kmax_r50"),
    "doctor": _command("doctor"),
    "a converter's help": _command("convert", "shapes", "--help"),
    "a program": [sys.executable, str(ROOT / "trainer" / "train.py"), "--help"],
}


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("command", PRINTING)
def test_a_full_standard_output_is_named(command, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONPATH": str(ROOT)}
    with FULL.open("w") as full:
        done = subprocess.run(
            PRINTING[command], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, env=environment
        )
    assert done.returncode == 1, done.stderr
    assert "error: standard output: cannot write to it: No space left on device; send it to" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def _ended(*body):
    """A process with `body` inside of `one_line_for_errors`: (status, what it prints on stderr)."""
    program = (
        "import atexit, os, signal, sys\n"
        "from deeplab2_kmax.command_exit import one_line_for_errors\n"
        "from deeplab2_kmax.errors import UserError\n"
        "def come(name): os.kill(os.getpid(), getattr(signal, name))\n"
        "class Slow:\n"
        "    def __del__(self): os.write(2, b'taken apart')\n"
        "kept = Slow()\n"
        "with one_line_for_errors():\n"
    )
    program += "".join(f"    {line}\n" for line in body)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize("number, name, status", [("SIGINT", "Ctrl-C", 130), ("SIGTERM", "SIGTERM", 143)])
def test_a_signal_ends_a_command_with_one_line(number, name, status):
    # Not even Python's own teardown comes after it, but what libraries want to do at exit.
    ended = _ended("atexit.register(os.write, 2, b'library')", f"come('{number}')")
    assert ended == (status, f"stopped by {name}: the same command starts anew\nlibrary")


def test_a_signal_that_comes_out_of_a_library_as_its_error_is_still_a_signal():
    status, printed = _ended(
        "try: come('SIGTERM')", "except SystemExit: raise RuntimeError('as TensorFlow does') from None"
    )
    assert (status, printed) == (143, "stopped by SIGTERM: the same command starts anew\n")


def test_what_fails_after_a_signal_that_was_held_back_is_told():
    status, printed = _ended(
        "from deeplab2_kmax.stop_signals import StopSignals",
        "with StopSignals() as stop, stop.held():",
        "    come('SIGTERM')",
        "    raise UserError('cannot write a checkpoint')",
    )
    assert status == 1 and printed.endswith("error: cannot write a checkpoint\ntaken apart")


HOSTILE = "a\x1b[2Jb\x9b2J\x07\x7f\rc\tähm\n"
ESCAPED = "a\\x1b[2Jb\\x9b2J\\x07\\x7f\\rc\tähm\n".replace("\\r", "\\x0d")


def test_what_is_printed_moves_no_cursor(capsys):
    """Whoever prints it: names of files and records may hold what a terminal acts on."""
    with one_line_for_errors():
        print(HOSTILE, end="")
        print(f"{ERASE_LINE}{HOSTILE}", end="")
        print(os.fsdecode(b"stra\xdfe"))
    assert capsys.readouterr().out == f"{ESCAPED}{ERASE_LINE}{ESCAPED}stra\\xdfe\n"
    with pytest.raises(SystemExit) as end, one_line_for_errors():
        raise UserError(HOSTILE)
    assert str(end.value.code) == f"error: {ESCAPED}"


NAMED = {
    "a picture": _command("check-dataset", "--dataset=shapes", "--file_pattern=a\x1b[2J"),
    "a flag": _command("predict", "a.png", "--output=x", "--flag\x1b[2J=1"),
    "a command": _command("predict\x1b[2J"),
    "a converter's flag": _command("convert", "shapes", "--flag\x1b[2J=1"),
    "a converter's folder": _command("convert", "folder", "--dataset=shapes", "--image_folder=a\x1b[2J",
        "--instance_folder=b",
        "--semantic_folder=b", "--output_dir=c"),
    "a config": _command("config", "a\x1b[2J"),
}  # fmt: skip


@pytest.mark.parametrize("command", NAMED)
def test_what_users_type_moves_no_cursor(command, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(NAMED[command], capture_output=True, timeout=120, env=environment, cwd=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2) and b"\x1b" not in said and b"\\x1b[2J" in said, said
