"""Notes, warnings and errors on a terminal and in a pipe."""

import logging

import pytest

from deeplab2_kmax import terminal

LONG = "one of the words " * 20


def test_notes_fit_80_columns_and_go_to_stderr(capsys):
    terminal.note(f"{LONG}\n  - an entry")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 6
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("note: one of") and all(line.startswith("      ") for line in lines[1:])
    assert lines[-1] == "        - an entry"


@pytest.mark.parametrize("level, prefix", [("warning", "warning: "), ("error", "error: "), ("info", "note: ")])
def test_messages_of_libraries_look_like_ours(level, prefix):
    record = logging.LogRecord("absl", getattr(logging, level.upper()), "file.py", 1, "%s it is", (LONG,), None)
    lines = terminal.OurFormatter().format(record).splitlines()
    assert lines[0].startswith(f"{prefix}one of the") and max(map(len, lines)) <= 80
    assert all(line.startswith(" " * len(prefix)) for line in lines[1:])
    assert lines[-1].endswith("it is")


def test_names_in_notes_and_warnings_are_escaped(capsys):
    terminal.note("a\x1b[2Jb")
    record = logging.LogRecord("absl", logging.WARNING, "file.py", 1, "%s: it is", ("a\x1b[2Jb",), None)
    assert capsys.readouterr().err == "note: a\\x1b[2Jb\n"
    assert terminal.OurFormatter().format(record) == "warning: a\\x1b[2Jb: it is"
