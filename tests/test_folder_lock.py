"""A folder's lock: one process at a time, whichever way the first one ends, and with or without `fcntl`."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from deeplab2_kmax.folder_lock import hold_lock, holder

# Says that it holds the lock, and keeps it until its input ends.
HOLD = """
import sys
if "--no_fcntl" in sys.argv:
    sys.modules["fcntl"] = None
from deeplab2_kmax.folder_lock import hold_lock
try:
    with hold_lock(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.read()
except BlockingIOError as error:
    print(error)
"""


@pytest.fixture
def other_process():
    """(path, options) -> a context with another process that has tried to get the lock: (process, what it said)."""

    @contextlib.contextmanager
    def start(path, *options):
        command = [sys.executable, "-W", "ignore::UserWarning", "-c", HOLD, str(path), *options]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, **pipes) as process:
            try:
                yield process, process.stdout.readline().strip()
            finally:
                process.kill()

    return start


def test_another_process_is_refused_and_told_who_holds_the_lock(tmp_path, other_process):
    lock = tmp_path / "lock"
    with other_process(lock) as (process, said):
        assert said == "held"
        with pytest.raises(BlockingIOError, match=f"{lock} is held by process {process.pid} on "), hold_lock(lock):
            pass
        # Being refused changes neither the lock nor the name of its holder.
        assert holder(lock).startswith(f"process {process.pid} on ")
        process.communicate("")
        with hold_lock(lock):
            assert holder(lock).startswith(f"process {os.getpid()} on ")


@pytest.mark.parametrize("options", [(), ("--no_fcntl",)])
def test_a_killed_process_leaves_the_lock_free(tmp_path, other_process, options):
    lock = tmp_path / "lock"
    with other_process(lock, *options) as (process, said):
        assert said == "held"
        process.send_signal(signal.SIGKILL)
        process.wait()
    with other_process(lock, *options) as (_, said):
        assert said == "held"


def test_without_fcntl_another_process_is_refused_too(tmp_path, other_process):
    lock = tmp_path / "lock"
    with other_process(lock, "--no_fcntl") as (process, said):
        assert said == "held"
        with other_process(lock, "--no_fcntl") as (_, said):
            assert said.startswith(f"{lock} is held by process {process.pid} on ")
        process.communicate("")
    with other_process(lock, "--no_fcntl") as (_, said):
        assert said == "held"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EIO, errno.ESTALE])
def test_a_file_system_that_cannot_lock_lets_every_process_in(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    with hold_lock(tmp_path / "lock"):
        pass  # An earlier run leaves its file.
    monkeypatch.setattr(fcntl, "flock", flock)
    with hold_lock(tmp_path / "lock"), hold_lock(tmp_path / "lock"):
        pass


def test_a_folder_is_made_unless_a_file_has_its_name(tmp_path):
    with hold_lock(tmp_path / "new" / "lock"):
        assert holder(tmp_path / "new" / "lock").startswith(f"process {os.getpid()} on ")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), hold_lock(tmp_path / "file" / "lock"):
        pass


def test_the_umask_decides_who_may_open_the_lock_file(tmp_path):
    before = os.umask(0o027)
    try:
        with hold_lock(tmp_path / "lock"):
            assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_without_a_name_the_holder_is_another_process(tmp_path):
    assert holder(tmp_path / "lock") == "another process"
    (tmp_path / "lock.holder").write_text("")
    assert holder(tmp_path / "lock") == "another process"
    (tmp_path / "lock.holder").write_bytes(b"\xff" * 1000)
    assert holder(tmp_path / "lock") == "\ufffd" * 200


def test_a_full_disk_leaves_the_lock_without_a_name(tmp_path, monkeypatch):
    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("deeplab2_kmax.files.write_text", no_room)
    refused = pytest.raises(BlockingIOError, match="is held by another process")
    with hold_lock(tmp_path / "lock"), refused, hold_lock(tmp_path / "lock"):
        pass
