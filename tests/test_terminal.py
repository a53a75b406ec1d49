"""Notes, warnings and errors on a terminal and in a pipe."""

import logging
import os

import pytest

from deeplab2_kmax import terminal
from deeplab2_kmax.errors import UserError, user_errors_as_one_line

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


@pytest.mark.parametrize("is_terminal", [True, False])
def test_errors_are_broken_at_spaces_on_a_terminal_only(monkeypatch, is_terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    assert os.environ["COLUMNS"] == "60"
    with pytest.raises(SystemExit) as end, user_errors_as_one_line():
        raise UserError(f"{LONG}\n    with a list")
    lines = str(end.value.code).splitlines()
    assert lines[0].startswith("error: one of") and lines[-1].strip() == "with a list"
    if is_terminal:
        assert len(lines) > 5 and max(map(len, lines)) <= 60
    else:
        assert len(lines) == 2
