"""files.py: atomic writing and uniform errors, on local paths and on TensorFlow's file system in memory (`ram://`)."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import stat
import subprocess
import sys
import threading
import uuid

import pytest

from deeplab2_kmax import files


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path) -> str:
    """An empty folder, once on this machine and once remote."""
    if request.param == "local":
        return str(tmp_path)
    path = f"ram://tests/{uuid.uuid4().hex}"
    files.make_folder(path)
    return path


def _has_only(folder: str, *names: str) -> bool:
    return files.list_folder(folder) == sorted(names)


def test_plain_paths_do_without_tensorflow(tmp_path):
    program = f"""
import sys
from deeplab2_kmax import files
folder = {str(tmp_path)!r}
files.write_json(files.join(folder, "a", "b.json"), [1])
files.append_line(files.join(folder, "log"), "line")
files.link_or_copy(files.join(folder, "log"), files.join(folder, "copy"))
files.require_writable(folder)
assert files.read_text(files.join(folder, "copy")) == "line\\n"
files.remove_tree(files.join(folder, "a"))
assert files.glob(files.join(folder, "*")) == [files.join(folder, "copy"), files.join(folder, "log")]
try:
    files.read_bytes(files.join(folder, "none"))
except FileNotFoundError:
    pass
sys.exit("tensorflow" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_written_is_read(folder):
    path = files.join(folder, "new", "deep", "file")
    files.write_bytes(path, b"\0\xff\n")
    assert files.read_bytes(path) == b"\0\xff\n"
    assert files.size(path) == 3
    files.write_text(path, "Zürich\n")
    assert files.read_text(path) == "Zürich\n"
    files.write_json(path, {"a": [1, 2]})
    assert json.loads(files.read_text(path)) == {"a": [1, 2]}
    files.write_bytes(path, b"")
    assert files.read_bytes(path) == b""
    assert _has_only(files.parent(path), "file")


def test_paths_may_be_path_objects(tmp_path):
    path = tmp_path / "new" / "file.txt"
    files.write_text(path, "text")
    assert files.exists(path) and files.read_text(path) == "text"
    assert files.join(tmp_path, pathlib.Path("new"), "file.txt") == str(path)
    files.remove_tree(path.parent)
    assert not files.is_folder(path.parent)


def test_a_large_file_is_written_and_read_in_pieces(folder):
    path = files.join(folder, "large")
    with files.atomic_file(path) as file:
        for number in range(5):
            file.write(bytes([number]) * 1000)
        assert not files.exists(path)
    with files.open_to_read(path) as file:
        file.seek(2999)
        assert file.read(2) == b"\2\3"
    with files.atomic_file(path, "w") as file:
        file.write("text")
    assert files.read_text(path) == "text"


@pytest.mark.parametrize("before", [None, b"old content"])
def test_a_writer_that_fails_leaves_what_was_there(folder, before):
    path = files.join(folder, "file")
    if before is not None:
        files.write_bytes(path, before)

    def fail(context, write):
        with pytest.raises(RuntimeError, match="halfway"), context as target:
            write(target)
            raise RuntimeError("halfway")

    fail(files.atomic_file(path), lambda file: file.write(b"new"))
    fail(files.atomic_path(path), lambda part: files.write_bytes(part, b"new"))
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    if before is None:
        assert _has_only(folder)
    else:
        assert files.read_bytes(path) == before
        assert _has_only(folder, "file")


def test_another_writer_may_open_the_temporary_path_by_itself(folder):
    import tensorflow as tf

    path = files.join(folder, "records")
    with files.atomic_path(path) as part, tf.io.TFRecordWriter(part) as writer:
        writer.write(b"record")
    assert [record.numpy() for record in tf.data.TFRecordDataset(path)] == [b"record"]
    assert _has_only(folder, "records")


def test_many_writers_of_one_file_do_not_collide(folder):
    path = files.join(folder, "file")
    files.write_bytes(path, b"0" * 100_000)
    faults = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                files.write_bytes(path, b"%d" % number * 100_000)
                content = files.read_bytes(path)
                assert len(content) == 100_000 and len(set(content)) == 1
        except BaseException as error:
            faults.append(error)

    # The file system in memory has no atomic replacement: readers there may find nothing for a moment.
    threads = [threading.Thread(target=work, args=(number,)) for number in range(1 if "://" in folder else 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert _has_only(folder, "file")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        files.write_text(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_links_and_devices_are_written_through(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    files.write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "text"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    files.write_text(pipe, "text")
    reader.join()
    assert received == ["text"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_long_names(folder):
    name = "ü" * 120  # 240 bytes of the 255 that a name may have
    files.write_text(files.join(folder, name), "text")
    assert _has_only(folder, name)


def test_temporary_files_are_known_by_name(folder):
    path = files.join(folder, "ckpt-1.index")
    with files.atomic_file(path) as file:
        file.write(b"content")
        (name,) = files.list_folder(folder)
        assert files.is_unfinished(name)
        assert not files.glob(files.join(folder, "ckpt-*"))
    for name in ("ckpt-1.index", "checkpoint", ".training.lock", "file.part"):
        assert not files.is_unfinished(name)


KILLED_WHILE_WRITING = """
import os, signal, sys
from deeplab2_kmax import files
with files.atomic_file(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_killed_processes_leave_is_cleared_away_and_nothing_else(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path / "file")], check=False)
    (killed,) = tmp_path.iterdir()
    assert files.is_unfinished(killed.name)
    # Of a process that is there, of a machine that nobody can ask, and of one that has been silent for long.
    other, old = (tmp_path / f".file.{mark * 8}.part" for mark in ("abc1", "abc2"))
    own = pathlib.Path(files._name_for_part(str(tmp_path / "file")))
    for path in (own, other, old):
        path.write_text("half")
    os.utime(old, (0, 0))
    files.write_text(tmp_path / "another", "whole")
    assert sorted(tmp_path.iterdir()) == sorted([own, other, tmp_path / "another"])


def test_lines_are_added(folder):
    path = files.join(folder, "new", "log")
    files.append_line(path, "first")
    files.append_line(path, "second")
    assert files.read_text(path) == "first\nsecond\n"
    files.write_text(path, "cut sho")
    files.append_line(path, "whole")
    assert files.read_text(path) == "cut sho\nwhole\n"


def test_a_second_name(folder):
    source, target = files.join(folder, "source"), files.join(folder, "new", "target")
    files.write_text(source, "text")
    for _ in range(2):  # The second time both names are the same file already.
        files.link_or_copy(source, target)
        assert files.read_text(target) == "text"
        assert _has_only(files.parent(target), "target")
    if not files.is_remote(folder):
        assert os.path.samefile(source, target)
    # Written anew, not written into: the other name keeps its content.
    files.write_text(source, "other")
    assert files.read_text(target) == "text"
    with pytest.raises(FileNotFoundError):
        files.link_or_copy(files.join(folder, "none"), target)
    assert files.read_text(target) == "text"


def test_copies_between_local_and_remote(tmp_path):
    remote, back = f"ram://tests/{uuid.uuid4().hex}", tmp_path / "back"
    files.write_text(tmp_path / "file", "text")
    files.link_or_copy(tmp_path / "file", remote)
    files.link_or_copy(remote, back)
    assert back.read_text() == "text"


def test_folders(folder):
    new = files.join(folder, "a", "b")
    assert not files.exists(new) and not files.is_folder(new)
    files.make_folder(new)
    files.make_folder(new)
    assert files.exists(new) and files.is_folder(new)
    with pytest.raises(FileExistsError):
        files.make_folder(new, exist_ok=False)
    files.make_folder(files.join(folder, "c", "d"), exist_ok=False)
    for name in ("2", "1", "x"):
        files.write_text(files.join(new, name), name)
    files.write_text(files.join(new, "below", "y"), "y")
    assert files.list_folder(new) == ["1", "2", "below", "x"]
    assert files.list_folder(folder) == ["a", "c"]
    assert files.glob(files.join(folder, "*", "b", "[0-9]")) == [files.join(new, "1"), files.join(new, "2")]
    files.rename(new, files.join(folder, "renamed"))
    assert files.list_folder(files.join(folder, "renamed")) == ["1", "2", "below", "x"]
    assert files.read_text(files.join(folder, "renamed", "below", "y")) == "y"
    assert not files.exists(new)
    files.remove_tree(files.join(folder, "renamed"))
    assert not files.exists(files.join(folder, "renamed"))
    files.remove_tree(files.join(folder, "renamed"))


def test_the_beginning_of_a_name_is_no_folder(folder):
    files.write_text(files.join(folder, "ckpt-1.index"), "text")
    files.make_folder(files.join(folder, "best.tmp"))
    files.make_folder(files.join(folder, "empty"))
    files.make_folder(files.join(folder, "empty.not"))
    assert files.list_folder(files.join(folder, "empty")) == []
    for name, there in (("ckpt-1", False), ("best", False), ("empty", True), ("best.tmp", True)):
        assert files.exists(files.join(folder, name)) == files.is_folder(files.join(folder, name)) == there
    assert files.exists(files.join(folder, "ckpt-1.index")) and not files.is_folder(files.join(folder, "ckpt-1.index"))
    assert files.is_folder(folder) and files.is_folder(files.parent(folder))


def test_files_are_renamed_and_removed(folder):
    old, new = files.join(folder, "old"), files.join(folder, "new")
    files.write_text(old, "text")
    files.write_text(new, "replaced")
    stamp = files.change_stamp(new)
    files.rename(old, new)
    assert files.read_text(new) == "text" and not files.exists(old)
    assert files.change_stamp(new) != stamp
    files.remove(new)
    files.remove(new)
    assert not files.exists(new)


def test_what_is_missing_is_a_file_not_found_error_with_its_path(folder):
    path = files.join(folder, "none", "file")
    for attempt in (files.read_bytes, files.read_text, files.size, files.list_folder):
        with pytest.raises(FileNotFoundError) as caught:
            attempt(path)
        assert caught.value.filename == path and caught.value.strerror
    with pytest.raises(FileNotFoundError) as caught, files.open_to_read(path):
        pass
    assert caught.value.filename == path


def test_other_errors_of_tensorflow():
    import tensorflow as tf

    expected = {
        tf.errors.PermissionDeniedError: (PermissionError, errno.EACCES),
        tf.errors.AlreadyExistsError: (FileExistsError, errno.EEXIST),
        tf.errors.ResourceExhaustedError: (OSError, errno.ENOSPC),
        tf.errors.UnavailableError: (OSError, errno.EIO),
    }
    for raised, (kind, code) in expected.items():
        with pytest.raises(kind, match="a reason") as caught, files._as_os_errors("gs://bucket/file"):
            raise raised(None, None, "a reason\nmore")
        assert (caught.value.errno, caught.value.filename) == (code, "gs://bucket/file")
        assert caught.value.strerror == "a reason"
    with pytest.raises(OSError, match="scheme 'nowhere' not implemented"):
        files.write_text("nowhere://bucket/file", "text")


def test_errors_name_the_file_and_not_the_temporary_one(tmp_path):
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "file" / "below", tmp_path / "file" / "below" / "deep"):
        with pytest.raises(NotADirectoryError) as caught:
            files.write_text(path, "text")
        assert ".part" not in str(caught.value)
    with pytest.raises(IsADirectoryError):
        files.write_text(tmp_path, "text")
    with pytest.raises(OSError) as caught:  # noqa: PT011  (root may write everywhere, but not into /proc)
        files.write_text("/proc/file", "text")
    assert caught.value.filename == "/proc/file"


def test_whether_a_folder_can_be_written(folder):
    new = files.join(folder, "new")
    files.require_writable(new)
    assert files.is_folder(new) and _has_only(new)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        files.require_writable("/proc")
    assert caught.value.filename == "/proc"
    with pytest.raises(OSError, match="nowhere"):
        files.require_writable("nowhere://bucket")


def test_paths():
    assert files.is_remote("gs://bucket/file") and not files.is_remote("/data:/file")
    assert files.join("gs://bucket", "a", "b") == "gs://bucket/a/b"
    assert files.join("runs", "gs://bucket/a", "b") == "gs://bucket/a/b"
    assert files.join("gs://bucket/a", "/data") == "/data" or os.name == "nt"
    assert files.parent("gs://bucket/a/b") == "gs://bucket/a"
    assert files.parent("ram://file") == "ram://"
    assert files.parent("a/b") == "a" and files.parent("a") == ""
    assert files.normalize("gs://bucket/a/../b//c") == "gs://bucket/b/c"
    assert files.normalize("a/../b") == "b"
    assert files.absolute("gs://bucket/a") == "gs://bucket/a"
    assert files.absolute("a") == os.path.join(os.getcwd(), "a")
    assert files.identity("gs://bucket/a/../b") == files.identity("gs://bucket/b")


def test_two_spellings_of_a_place(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert files.identity(tmp_path / "link") == files.identity(tmp_path / "file")


def test_a_bare_name_is_written_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write_text("file", "text")
    files.append_line("file", "line")
    assert (tmp_path / "file").read_text() == "text\nline\n"


def test_json_files_are_strict(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": [float("nan"), (1.5, float("-inf"))], "b": 1})
    assert (tmp_path / "a.json").read_text().count("null") == 2
    assert files.read_json(tmp_path / "a.json") == {"a": [None, [1.5, None]], "b": 1}
