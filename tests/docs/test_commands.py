"""Every command of README and docs exists as written: programs, sub-commands, flags, configs and their fields.

A command that no test here knows is an error, so that none is documented without a check. That commands also do what
they should is shown where their parts are tested, and for whole pages in tests/your_own_dataset and
tests/docs/test_running_commands.py.
"""

import argparse
import contextlib
import io
import re
import shlex

import pytest

from deeplab2_kmax.cli import main as command_line
from deeplab2_kmax.config import load_config
from deeplab2_kmax.errors import UserError
from helpers.documented_commands import ROOT, Command, commands_of, documented_commands

COMMANDS = documented_commands()
# Names on the pages that stand for what a user has -> something of this kind.
STAND_INS = {
    "FILE": "coco/kmax_r50",
    "STEP": "coco/ladder/5_cmt",
    "STEP_BEFORE": "coco/ladder/4_pixel_update",
    "my.textproto": "coco/kmax_r50",
    "your_kmax_r50.textproto": "coco/kmax_r50",
    # What users write themselves, or conversion of a checkpoint leaves.
    "my/experiment.textproto": "coco/kmax_r50",
    "converted/kmax_r50.textproto": "coco/kmax_r50",
    "...": "coco/kmax_r50",
    "TOOL": "folder",
    "NAME": "folder",
}
# Programs that are not ours, and ours that install or need a network: nothing but their first words is looked at.
ELSEWHERE = re.compile(
    r"source \S+/activate|docker run|tensorboard --logdir|export TF_CONFIG="
    r"|(\S*/)?pip (install|wheel)|(\S*/)?python\S* -m (venv|pip)|\S+/(mypy|lint-imports)$|\S+=1 python program.py$"
)
PROGRAM = re.compile(r"(?:\S*/)?python[\d.]* (?:-m deeplab2_kmax\.converters\.(\w+)|((?:\w+/)+\w+\.py))(?: |$)")
HELPERS_OF = {
    "converters": ["deeplab2_kmax/converters/command_line.py"],
    "benchmarks": ["benchmarks/beside_deeplab2.py"],
}


def check(command: Command) -> None:
    """Fails unless the command is right; an unknown one is a failure as well."""
    line = command.line
    if "deeplab2-kmax" in line.split()[0]:
        check_own(shlex.split(line)[1:], command.is_whole)
    elif program := PROGRAM.match(line):
        file = f"deeplab2_kmax/converters/{program[1]}.py" if program[1] else program[2]
        assert (ROOT / file).is_file(), f"{file} does not exist"
        check_program(file, shlex.split(line)[1:])
    elif line.startswith("--override "):
        load_config("coco/kmax_r50", overrides_of(shlex.split(line)))
    elif re.match(r"(\S+=\S+ )*make( |$)", line):
        check_make(line)
    elif re.match(r"(\S+ -m )?pytest ", line):
        tests = [word for word in line.split() if word.startswith("tests")]
        assert all((ROOT / each).exists() for each in tests), line
    else:
        assert ELSEWHERE.match(line), "no test knows this command; add it to one of the kinds in tests/docs"


def check_own(words: list[str], is_whole: bool) -> None:
    """A line of `deeplab2-kmax`, without its first word, by the parser that the command itself has."""
    if words == ["--help"]:
        return
    words = [STAND_INS.get(word, word) for word in words]
    parser, said = command_line._parser("deeplab2-kmax"), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options, rest = parser.parse_known_args(words)
    except SystemExit:
        # A sentence may name a command without the flags that it needs, but not by a wrong name.
        assert not is_whole and "the following arguments are required" in said.getvalue(), said.getvalue()
        return
    if words[0] == "convert":
        if "--help" not in words:
            check_program(f"{command_line._CONVERTERS[words[1]][0].replace('.', '/')}.py", words[2:])
        return
    assert not rest, f"unknown flags: {rest}"
    check_config(options)


def check_config(options: argparse.Namespace) -> None:
    """Loads the config that a command names, with its overrides; those of a user's own files by a stand-in."""
    for name in filter(None, (getattr(options, field, None) for field in ("config_file", "file", "diff"))):
        load_config(STAND_INS.get(name, name), getattr(options, "override", []))


def check_program(file: str, words: list[str]) -> None:
    """The flags of a program, by the names that its source declares, and its config with its overrides."""
    helpers = HELPERS_OF.get(file.split("/")[-2], [])
    source = "".join((ROOT / each).read_text() for each in [file, *helpers])
    known = set(re.findall(r'(?:DEFINE_\w+|add_argument)\(\s*"(?:--)?(\w+)"', source))
    used = [word.lstrip("-").split("=")[0] for word in words if word.startswith("--")]
    assert set(used) <= known, f"{file} has no {set(used) - known}, but {sorted(known)}"
    names = [
        word.split("=", 1)[1] for word in words if word.startswith(("--config_file=", "--experiment_option_path="))
    ]
    for name in names:
        load_config(STAND_INS.get(name, str(ROOT / name)), overrides_of(words))


def overrides_of(words: list[str]) -> list[str]:
    """The values of --override, in both spellings."""
    after = [word for flag, word in zip(words, words[1:]) if flag == "--override"]
    return after + [word.split("=", 1)[1] for word in words if word.startswith("--override=")]


def check_make(line: str) -> None:
    """Goals and variables of the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    words = re.sub(r"\$\(.*?\)", "python3", line).split()
    for word in words[words.index("make") + 1 :]:
        name = word.split("=")[0]
        is_there = re.search(rf"^(override )?{name} ?[:?]?=" if "=" in word else rf"^{name}:", makefile, re.MULTILINE)
        assert is_there or name == "FAST", f"the Makefile has no {name}"


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_the_command_is_as_documented(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    check(command)


def test_commands_are_found_in_blocks_lists_and_sentences():
    page = """
Type `deeplab2-kmax doctor`, or
`deeplab2-kmax
config FILE`. `files` are none.

1. So:

   ```
   make demo  # all
   runs/x  a folder
   deeplab2-kmax eval \\
       --config_file=A
   ```
```sh
ls -l
```
```python
pip = 1
```
"""
    found = [(command.line, command.is_whole) for command in commands_of("page", page)]
    whole = [("make demo", True), ("deeplab2-kmax eval --config_file=A", True), ("ls -l", True)]
    assert found == [*whole, ("deeplab2-kmax doctor", False), ("deeplab2-kmax config FILE", False)]
    assert len(COMMANDS) > 90


@pytest.mark.parametrize(
    "line",
    [
        "deeplab2-kmax predikt photo.jpg",
        "deeplab2-kmax eval --config_file=coco/kmax_r50 --gpus=2",
        "deeplab2-kmax train --config_file=coco/kmax_r51",
        "deeplab2-kmax train --config_file=coco/kmax_r50 --override=no_such_field=1",
        "deeplab2-kmax convert folder --pictures=x",
        "deeplab2-kmax convert --help nothing --x",
        "python trainer/train.py --config_file=configs/coco/kmax_r50.textproto --override no.such=1",
        "python benchmarks/nothing.py",
        "python -m deeplab2_kmax.converters.shapes --output=x",
        "--override input_size=641,642,643",
        "make cake",
        "pytest tests/nothing",
        "rm -r /",
    ],
)
def test_wrong_commands_are_noticed(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((AssertionError, UserError)):
        check(Command("page", line, True))
