"""make_environment.sh and the Makefile: which Python they take, and what they mend, refuse and say.

Interpreters are shell scripts that tell of themselves what the test wants; their pip installs nothing.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TOOLS = [
    "sh",
    "bash",
    "cat",
    "cksum",
    "cut",
    "date",
    "dirname",
    "du",
    "echo",
    "env",
    "grep",
    "head",
    "ls",
    "make",
    "mkdir",
]
TOOLS += ["mktemp", "mv", "rm", "sed", "sleep", "tail", "test", "touch"]
WILL_DO = "Python 3.9 to 3.13 will do (CPython, 64 bit, with venv and ensurepip): make demo PYTHON=/path/to/python3.12"

pytestmark = pytest.mark.skipif(not shutil.which("make") or os.name != "posix", reason="needs make and a POSIX shell")

# Answers the four ways in which make_environment.sh and the Makefile call an interpreter. Its pip runs $FAKE_PIP.
FAKE = """#!/bin/sh
case "$*" in
*ensurepip*) printf '%s\\n' "@facts@" "@prefix@" "@path@" ;;
*fcntl*) exec @python@ "$@" ;;
*version_info*) echo "@version@" ;;
"-m venv "*)
    mkdir -p "$3/bin" "$3/lib/python@version@/site-packages/pip"
    touch "$3/pyvenv.cfg"
    cat "@path@" >"$3/bin/python"
    for tool in ruff mypy; do printf '#!/bin/sh\\necho "@version@ $0 $*"\\n' >"$3/bin/$tool"; done
    @python@ -c 'import os, sys; [os.chmod(path, 0o755) for path in sys.argv[1:]]' "$3"/bin/* ;;
"-m pip "*)
    echo "@version@ $*" >>"$CALLS"
    touch "${0%/*}/deeplab2-kmax"
    eval "${FAKE_PIP:-}" ;;
*) echo "@version@ $*" ;;
esac
"""


class Checkout:
    """A folder with the files that the set-up needs, on a machine of its own: nothing but tools on the PATH."""

    def __init__(self, machine: pathlib.Path, name: str = "checkout"):
        self.machine, self.folder = machine, machine / name
        for tool in TOOLS:
            (machine / "tools").mkdir(exist_ok=True)
            if found := shutil.which(tool):
                (machine / "tools" / tool).symlink_to(found)
        (self.folder / ".ci").mkdir(parents=True)
        for file in ("Makefile", "pyproject.toml", "setup.py", ".ci/run"):
            shutil.copy(ROOT / file, self.folder / file)
        # A Python that lies there on the machine of the test is none of this machine's.
        script = (ROOT / "make_environment.sh").read_text().replace("/opt/", f"{machine}/opt/")
        (self.folder / "make_environment.sh").write_text(script)
        self.calls = machine / "calls"
        self.calls.touch()

    @property
    def environment(self) -> pathlib.Path:
        return self.folder / ".venv"

    def python(self, path="usr/python3", release="3.11.7", facts="cpython {release} 64 complete", starts=True) -> str:
        """Puts an interpreter on the machine."""
        target = self.machine / path
        target.parent.mkdir(parents=True, exist_ok=True)
        values = {
            "facts": facts.format(release=release),
            "prefix": target.parent.parent,
            "path": target,
            "version": release.rpartition(".")[0],
            "python": sys.executable,
        }
        text = re.sub("@([a-z]+)@", lambda match: str(values[match[1]]), FAKE)
        target.write_text(text if starts else "#!/bin/sh\necho 'pyenv: command not found'\necho 'See help'\nexit 127\n")
        target.chmod(0o755)
        return str(target)

    def start(self, command: str = "sh make_environment.sh", **variables: str) -> subprocess.Popen:
        folders = [self.machine / name for name in ("first", "usr", "tools")]
        environment = {"PATH": os.pathsep.join(map(str, folders)), "HOME": str(self.machine), "CALLS": str(self.calls)}
        environment |= {"GOAL": "demo", **variables}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, shell=True, cwd=self.folder, env=environment, start_new_session=True, **pipes)

    def run(self, command: str = "sh make_environment.sh", fails: bool = False, **variables: str) -> str:
        """What it prints: the error if it fails, else the rest. Nothing may come on the other way."""
        process = self.start(command, **variables)
        printed, errors = process.communicate(timeout=60)
        assert (process.returncode != 0) == fails, printed + errors
        if not fails:
            assert not errors
        return errors if fails else printed

    def installs(self) -> list[str]:
        """Python and arguments of each installation since the last call."""
        calls = [call for call in self.calls.read_text().splitlines() if "pip>=" not in call]
        self.calls.write_text("")
        return [re.sub("-m pip install .*progress-bar=off ", "", call) for call in calls]


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def installed(checkout) -> Checkout:
    """With Python 3.11, and a finished environment in which somebody has left a file."""
    checkout.python()
    checkout.run()
    assert checkout.installs() == ["3.11 -e .[dev]"]
    (checkout.environment / "stray").touch()
    return checkout


# --- Interpreters ---


@pytest.mark.parametrize(
    "python, problem",
    [
        ({"release": "3.8.18"}, "is Python 3.8.18"),
        ({"release": "3.14.0"}, "is Python 3.14.0"),
        ({"release": "2.7.18"}, "is Python 2.7.18"),
        ({"facts": "cpython 3.11.7 32 complete"}, "is a Python of 32 bit"),
        ({"facts": "cpython 3.11.7 64 incomplete"}, "lacks venv or ensurepip (on Debian and Ubuntu: apt "
         "install python3.11-venv)"),
        ({"facts": "pypy 3.10.1 64 complete"}, "is pypy 3.10.1, for which there is no TensorFlow"),
        ({"facts": "cpythont 3.13.0 64 complete"}, "is cpythont 3.13.0, for which there is no TensorFlow"),
        ({"facts": "cpython-musl 3.12.0 64 complete"}, "is cpython-musl 3.12.0, for which there is no TensorFlow"),
        ({"starts": False}, "does not start: pyenv: command not found"),
    ],
)  # fmt: skip
def test_an_interpreter_that_does_not_serve_is_named_with_what_it_is(checkout, python, problem):
    path = checkout.python(**python)
    assert checkout.run(fails=True, PYTHON=path) == f"error: PYTHON={path} {problem}. {WILL_DO}\n"
    # Nor is it taken, or passed over in silence, if nobody has asked for it.
    assert checkout.run(fails=True) == f"error: no Python that will do was found. {path} {problem}; {WILL_DO}\n"
    assert not checkout.environment.exists()


def test_where_there_is_no_python_one_line_says_which_would_do(checkout):
    assert checkout.run(fails=True) == f"error: no Python that will do was found. {WILL_DO}\n"
    missing = checkout.run(fails=True, PYTHON="3.12")
    assert missing == f"error: PYTHON=3.12: there is no such program. {WILL_DO}\n"
    folder = checkout.run(fails=True, PYTHON=str(checkout.machine))
    assert folder.startswith(f"error: PYTHON={checkout.machine} is a folder; give the interpreter in it: make demo ")


def test_the_python_that_is_given_is_taken_or_refused_but_not_replaced(installed):
    old = installed.python("usr/python3.8", "3.8.18")
    # Also where an environment is there that fits.
    assert "is Python 3.8.18" in installed.run(fails=True, PYTHON=old)
    assert "is Python 3.8.18" in installed.run(fails=True, PYTHON="python3.8")
    assert not installed.installs()
    assert installed.run(PYTHON="python3") == ""


@pytest.mark.parametrize(
    "others, expected",
    [
        # The user's python3, if it serves.
        ({"usr/python3": "3.13.0", "usr/python3.11": "3.11.7"}, "3.13"),
        ({"usr/python3": "3.8.18", "usr/python3.12": "3.12.1"}, "3.12"),
        ({"usr/python3": "3.14.0", "usr/python": "3.10.2"}, "3.10"),
        # What is not on the PATH.
        ({"usr/python3": "3.6.1", ".pyenv/versions/3.9.18/bin/python3.9": "3.9.18"}, "3.9"),
        ({"miniconda3/bin/python3.12": "3.12.1"}, "3.12"),
        ({"opt/homebrew/bin/python3.13": "3.13.1"}, "3.13"),
    ],
)
def test_an_interpreter_that_serves_is_found(checkout, others, expected):
    # pyenv puts a program for each version before all others; those of versions that are not active do not start.
    for version in ("3.9", "3.10", "3.11", "3.12", "3.13"):
        checkout.python(f"first/python{version}", starts=False)
    for path, release in others.items():
        checkout.python(path, release)
    checkout.run()
    assert checkout.installs() == [f"{expected} -e .[dev]"]


def test_the_real_facts_of_an_interpreter_are_understood(checkout):
    """This one, which may be that of a virtual environment: what it was made with is the answer."""
    version = "{}.{}".format(*sys.version_info)
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    found = checkout.run(f"sh make_environment.sh find {version}", PATH=path)
    code = f"import sys; print(sys.version.startswith('{version}.'), sys.prefix == sys.base_prefix)"
    assert subprocess.run([found.strip(), "-c", code], capture_output=True, text=True).stdout == "True True\n"


def test_the_versions_are_those_of_the_metadata():
    script = (ROOT / "make_environment.sh").read_text()
    versions = re.search('^versions="(.*)"', script, re.MULTILINE)[1].split()
    minors = [int(version.partition(".")[2]) for version in versions]
    assert minors == list(range(minors[0], minors[-1] + 1))
    metadata = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">=3.{minors[0]},<3.{minors[-1] + 1}"' in metadata
    assert f"Python {versions[0]} to {versions[-1]} will do" in script


# --- What is there already ---


def test_a_finished_environment_is_used_at_once(installed):
    begin = time.perf_counter()
    assert installed.run() == ""
    assert time.perf_counter() - begin < 1
    assert not installed.installs()
    assert installed.run(PYTHON=installed.python()) == ""  # That it was made with.
    assert (installed.environment / "stray").exists()


def _half_made(checkout):
    (checkout.environment / ".finished_by_make").unlink()


def _without_interpreter(checkout):
    (checkout.environment / "bin" / "python").unlink()


def _interpreter_removed(checkout):
    (checkout.environment / "bin" / "python").unlink()
    (checkout.environment / "bin" / "python").symlink_to(checkout.machine / "removed")


def _interpreter_upgraded(checkout):
    shutil.copy(checkout.python("usr/python3.12", "3.12.1"), checkout.environment / "bin" / "python")


def _moved(checkout):
    checkout.folder = checkout.folder.rename(checkout.machine / "moved")


def _copied(checkout):
    checkout.folder = pathlib.Path(shutil.copytree(checkout.folder, checkout.machine / "copied"))


def _of_an_earlier_makefile(checkout):
    (checkout.environment / ".finished_by_make").unlink()
    (checkout.environment / ".made_by_make").unlink()
    (checkout.environment / "installed").touch()


@pytest.mark.parametrize(
    "damage, reason",
    [
        (_half_made, "half-made: its installation has not come to its end"),
        (_without_interpreter, "without an interpreter that starts (it was Python 3.11 {machine})"),
        (_interpreter_removed, "without an interpreter that starts (it was Python 3.11 {machine})"),
        (_interpreter_upgraded, "of Python 3.11, and its interpreter is 3.12 now"),
        (_moved, "moved or copied from {machine}/checkout/.venv"),
        (_copied, "moved or copied from {machine}/checkout/.venv"),
        (_of_an_earlier_makefile, "one of an earlier Makefile"),
    ],
)
def test_an_environment_that_does_not_fit_is_made_anew(installed, damage, reason):
    damage(installed)
    printed = installed.run()
    assert printed.startswith(f".venv is {reason.format(machine=installed.machine)}: making it anew\ninstalling ")
    assert installed.installs() == ["3.11 -e .[dev]"]
    assert not (installed.environment / "stray").exists()
    assert installed.run() == ""


def test_another_python_makes_it_anew(installed):
    other = installed.python("other/bin/python3.12", "3.12.1")
    printed = installed.run(PYTHON=other)
    assert f"is of Python 3.11 {installed.machine}, and PYTHON={other} is 3.12 {installed.machine}/other:" in printed
    assert "installing TensorFlow 2.20 " in printed
    assert installed.installs() == ["3.12 -e .[dev]"]
    assert installed.run() == ""  # Whoever does not choose keeps it.


def test_a_change_of_the_metadata_brings_it_up_to_date(installed):
    with (installed.folder / "pyproject.toml").open("a") as file:
        file.write("\n# another dependency\n")
    expected = ".venv is older than pyproject.toml or setup.py: bringing it up to date (.venv/installation.log "
    assert "pip failed" in installed.run(fails=True, FAKE_PIP="exit 1")
    assert installed.run().startswith(expected)  # pip takes back what it could not finish: it is not half-made.
    assert installed.installs() == ["3.11 -e .[dev]"]
    assert (installed.environment / "stray").exists()
    assert installed.run() == ""


def test_an_environment_elsewhere_follows_the_checkout_that_uses_it(installed):
    shared, before = {"VENV": str(installed.machine / "shared")}, installed.folder
    installed.run(**shared)
    _copied(installed)
    assert installed.run(**shared).startswith(f"{shared['VENV']} is of the checkout {before}: bringing")


# --- What is not ours ---


def _files(folder: pathlib.Path) -> set[pathlib.Path]:
    return set(folder.rglob("*"))


def _folder(path):
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").touch()


def _own_environment(path):
    (path / "lib" / "python3.11" / "site-packages" / "jupyter").mkdir(parents=True)
    (path / "pyvenv.cfg").touch()


@pytest.mark.parametrize("name", [".venv", "a folder/of mine"])
@pytest.mark.parametrize(
    "make, kind",
    [
        (_folder, "is no virtual environment, and stays as it is."),
        (_own_environment, "is a virtual environment that make has not made, and stays as it is."),
        (pathlib.Path.touch, "is a file, not the folder of a virtual environment;"),
    ],
)
def test_a_folder_that_was_not_made_here_is_refused_and_stays(checkout, make, kind, name):
    checkout.python()
    (checkout.folder / name).parent.mkdir(exist_ok=True)
    make(checkout.folder / name)
    before = _files(checkout.folder)
    for command in ("sh make_environment.sh", "sh make_environment.sh remove"):
        assert checkout.run(command, fails=True, VENV=name).startswith(f"error: VENV={name} {kind}")
    assert _files(checkout.folder) == before


@pytest.mark.parametrize("name", ["/", ".", "..", "~/venv", "a$b", "a:b", "a;b", 'a"b'])
def test_a_path_that_cannot_be_an_environment_is_refused(checkout, name):
    checkout.python()
    before = _files(checkout.machine)
    assert checkout.run(fails=True, VENV=name).startswith(f"error: VENV={name}")
    assert _files(checkout.machine) == before


def test_folders_without_content_are_taken(checkout):
    checkout.python()
    checkout.environment.mkdir()
    checkout.run()
    # `python -m venv .venv` of somebody who went no further.
    checkout.run(VENV="new")
    for mark in (checkout.folder / "new").glob(".*by_make"):
        mark.unlink()
    assert "half-made" in checkout.run(VENV="new")


def test_removing(installed):
    (installed.folder / "runs").mkdir()
    installed.run("make --silent clean")
    assert not installed.environment.exists()
    assert (installed.folder / "runs").exists()


# --- What the user has set for other purposes ---

ASTRAY = (
    "PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_PYTHON PIP_NO_DEPS PIP_DRY_RUN PIP_REQUIREMENT"
)
ASTRAY += " PIP_PRE PIP_NO_BUILD_ISOLATION PIP_REQUIRE_VIRTUALENV PIP_target"
KEPT = "PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_NO_INDEX PIP_FIND_LINKS PIP_CONFIG_FILE PIP_CERT PIP_CACHE_DIR"
KEPT += " PIP_NO_CACHE_DIR PIP_CONSTRAINT PIP_ONLY_BINARY HTTPS_PROXY"


def test_the_users_settings_lead_neither_pip_nor_a_command_astray(checkout):
    checkout.python()
    variables = {name: "the user's" for name in [*ASTRAY.split(), *KEPT.split()]}
    show = 'env >"$CALLS.pip"; test -d "$TMPDIR"'
    checkout.run(TMPDIR=str(checkout.machine / "gone"), FAKE_PIP=show, **variables)
    told = (checkout.machine / "calls.pip").read_text().splitlines()
    assert {line.partition("=")[0] for line in told if line.endswith("the user's")} == set(KEPT.split())
    assert "PIP_USER=0" in told
    # Commands of the environment see its own packages.
    (checkout.environment / "bin" / "ruff").write_text('#!/bin/sh\necho "path: ${PYTHONPATH-}${PYTHONHOME-}"\n')
    assert "path: \n" in checkout.run("make --silent lint", **variables)


def test_packages_that_pip_has_put_elsewhere_are_missed(checkout):
    """A configuration file may say so, and it cannot be passed over: it may name the index, too."""
    checkout.python()
    error = checkout.run(fails=True, FAKE_PIP='rm "${0%/*}/deeplab2-kmax"')
    assert error.startswith("error: pip has put the packages elsewhere, or has left some out. ")
    assert f"{checkout.environment}/bin/python -m pip config list shows" in error
    assert checkout.run().startswith(".venv is half-made")


def test_constraints_that_cannot_be_met_are_named(checkout):
    checkout.python()
    pip = "echo ERROR: ResolutionImpossible; exit 1"
    error = checkout.run(fails=True, FAKE_PIP=pip, PIP_CONSTRAINT="/etc/pip/constraint.txt")
    assert "PIP_CONSTRAINT=/etc/pip/constraint.txt asks for other versions than deeplab2_kmax; try again" in error


# --- Interruptions ---


@pytest.mark.parametrize(
    "said, advice",
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full: make room for 3 GB, or choose a folder on"),
        (
            "NewConnectionError: Temporary failure in name resolution",
            "the package index cannot be reached: try again, or",
        ),
        ("ERROR: No matching distribution (from versions: none)", "the package index does not have what is needed, or"),
        ("ERROR: ResolutionImpossible", "the same command tries again; .venv/installation.log holds all that it said"),
    ],
)
def test_when_pip_fails_its_last_lines_are_shown_with_advice(checkout, said, advice):
    checkout.python()
    pip = f"for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do echo line $i; done; echo '{said}'; exit 1"
    errors = checkout.run(fails=True, FAKE_PIP=pip).splitlines()
    assert errors[:-1] == [f"line {number}" for number in range(6, 17)] + [said]
    assert errors[-1].startswith(f"error: pip failed: {advice}")
    assert checkout.run().startswith(".venv is half-made")


def _wait_for(file: pathlib.Path, process: subprocess.Popen):
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_ctrl_c_says_how_to_go_on(checkout):
    checkout.python()
    process = checkout.start(FAKE_PIP="touch $CALLS.begun; exec sleep 30")
    _wait_for(checkout.machine / "calls.begun", process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert errors.endswith("stopped: .venv is half-made, and the same command makes it anew\n")
    assert process.returncode
    assert checkout.run().startswith(".venv is half-made")


def test_a_kill_is_mended_also_when_pip_goes_on_without_make(checkout):
    checkout.python()
    process = checkout.start("exec sh make_environment.sh", FAKE_PIP="touch $CALLS.begun; sleep 1; touch $CALLS.over")
    _wait_for(checkout.machine / "calls.begun", process)
    process.kill()
    process.wait()
    printed = checkout.run(FAKE_PIP="test -e $CALLS.over")  # Not before that pip has come to its end.
    assert printed.startswith("another make (or the pip of one that was killed) works on .venv: waiting for its end\n")
    assert ".venv is half-made" in printed
    assert checkout.run() == ""


def test_two_at_once_install_once(checkout):
    checkout.python()
    processes = [checkout.start(FAKE_PIP="sleep 0.3") for _ in range(3)]
    outputs = [process.communicate(timeout=30) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outputs
    assert sorted("installing" in printed for printed, _ in outputs) == [False, False, True]
    assert checkout.installs() == ["3.11 -e .[dev]"]


# --- make ---


def test_make_in_a_path_with_spaces(tmp_path):
    checkout = Checkout(tmp_path, "my checkout")
    python = checkout.python("my python/python3")
    printed = checkout.run("make --silent lint install", PYTHON=python, VENV="my venv")
    assert "3.11 my venv/bin/mypy \n" in printed
    assert 'Next: "my venv/bin"/deeplab2-kmax doctor ' in printed
    assert checkout.installs() == ["3.11 -e .[dev]"]
    assert "3.11" not in checkout.run("make --silent install", VENV="my venv")


def test_make_takes_python_and_venv_from_its_command_line(checkout):
    python = checkout.python("other/python3.12", "3.12.1")
    checkout.run(f"make --silent install PYTHON={python} VENV=there")
    assert checkout.installs() == ["3.12 -e .[dev]"]
    assert (checkout.folder / "there" / "pyvenv.cfg").exists() and not checkout.environment.exists()
    refused = checkout.run("make --silent demo PYTHON=3.4", fails=True).splitlines()[0]
    assert refused == f"error: PYTHON=3.4: there is no such program. {WILL_DO}"


@pytest.mark.parametrize("own, other", [("3.11.7", "3.13.0"), ("3.12.1", "3.10.2")])
def test_ci_tests_the_other_line_where_it_finds_a_python(checkout, own, other):
    checkout.python("usr/python3", own)
    temporary = checkout.machine / "temporary"
    temporary.mkdir()
    alone = checkout.run(".ci/run", TMPDIR=str(temporary))
    assert f"{own[:4]} -m pytest -q -n 2 --dist loadfile tests\n" in alone
    assert "the other line of dependencies was not tested: no Python" in alone.splitlines()[-1]
    assert len(checkout.installs()) == 1

    missing = checkout.run(".ci/run", fails=True, TMPDIR=str(checkout.machine / "gone")).splitlines()[-1]
    assert missing == f"error: TMPDIR={checkout.machine}/gone: expected a folder that can be written to"

    path = checkout.python(f"usr/python{other[:4]}", other)
    both = checkout.run(".ci/run", TMPDIR=str(temporary))
    assert f"{other[:4]} -m pytest -q -n 2 --dist loadfile tests/config " in both
    assert f"make test-core with {path}" in both.splitlines()[-1]
    assert len(checkout.installs()) == 1
    assert not list(temporary.iterdir())  # Nothing is left outside of the checkout.


@pytest.mark.parametrize("given", ["FAST=no", "SEED=x", "SEED='1 2'", "JOBS=1.5"])
def test_what_the_demo_cannot_take_is_refused_before_the_installation(checkout, given):
    checkout.python()
    name, _, value = given.replace("'", "").partition("=")
    assert f"*** {name}={value}: expected " in checkout.run(f"make demo {given}", fails=True)
    assert not checkout.installs()
