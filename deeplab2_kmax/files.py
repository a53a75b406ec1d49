"""Reading and writing files, on this machine or on remote storage such as `gs://bucket/run`.

Plain paths are handled by Python's standard library. Paths with `://` go through `tf.io.gfile`; TensorFlow is imported
only then, so that commands that work on local files start quickly. Whatever storage is behind a path, failures are
reported as OSError (FileNotFoundError, PermissionError, ...) with the path in `filename`.

Everything is written atomically: to a temporary file beside the target, which then takes the target's name. A reader
finds the old content or the new content, never a part of it, and a failed write leaves the old file as it was. So does
a power cut: the content is on the disk (`sync`) before it gets its name. What killed processes leave of temporary files
in a local folder, the next one that writes there clears away.

Keep remote paths as text: `pathlib.Path("gs://bucket")` turns them into `gs:/bucket`, a local path.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import glob as local_glob
import hashlib
import json
import math
import os
import posixpath
import re
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from typing import IO, Any, Union

# typing.Union, as Python 3.9 does not know `|` outside of annotations.
StrPath = Union[str, "os.PathLike[str]"]

# Of a temporary file: where its process runs, which one it is, and something that no other file has.
_UNFINISHED = re.compile(r"\..*\.([0-9a-f]{12})([0-9a-f]{8})[0-9a-f]{12}\.part")
# So long nobody waits between two pieces of a file that is still being written.
_SECONDS_TO_ABANDON = 24 * 3600
_SPECIAL_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
# What the operating system says of a disk that takes no more; it may not name the file.
_WRITE_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)
# A name may have 255 bytes; a character takes up to four of them.
_NAME_PART = 48


def is_remote(path: StrPath) -> bool:
    """Whether the path is a URL such as gs://bucket/file, to be opened by TensorFlow."""
    return "://" in os.fspath(path)


def join(folder: StrPath, *names: StrPath) -> str:
    """The path of `names` below `folder`; as with os.path.join, a name that is absolute or remote starts anew."""
    path = os.fspath(folder)
    for name in [os.fspath(each) for each in names]:
        if is_remote(name):
            path = name
        else:
            path = posixpath.join(path, name) if is_remote(path) else os.path.join(path, name)
    return path


def parent(path: StrPath) -> str:
    """The folder that `path` lies in; "" for a bare file name."""
    text = os.fspath(path)
    if not is_remote(text):
        return os.path.dirname(text)
    # os.path.dirname would make "ram:" of "ram://file".
    scheme, _, rest = text.partition("://")
    return f"{scheme}://{posixpath.dirname(rest)}"


def normalize(path: StrPath) -> str:
    """The path without `..`, `.` and doubled slashes."""
    text = os.fspath(path)
    if not is_remote(text):
        return os.path.normpath(text)
    # os.path.normpath would make "gs:/" of "gs://".
    scheme, _, rest = text.partition("://")
    return f"{scheme}://{posixpath.normpath(rest) if rest else ''}"


def absolute(path: StrPath) -> str:
    """The path from the root, as messages should show it; a remote path has no working directory to start from."""
    return normalize(path) if is_remote(path) else os.path.abspath(path)


def identity(path: StrPath) -> str:
    """Text that is equal for two spellings of one place, symbolic links included."""
    return normalize(path) if is_remote(path) else os.path.realpath(path)


def open_to_read(path: StrPath) -> contextlib.AbstractContextManager[IO[Any]]:
    """Opens a file to read bytes from any place in it; for files too large for `read_bytes`."""
    return _opened(path, "rb")


def read_bytes(path: StrPath) -> bytes:
    """The content of a file."""
    with open_to_read(path) as file:
        content: bytes = file.read()
    return content


def read_text(path: StrPath) -> str:
    """The content of a UTF-8 text file; raises UnicodeDecodeError, a ValueError, where it is none.

    Editors on Windows put a byte order mark in front, which is left out.
    """
    return read_bytes(path).decode("utf-8-sig")


def read_json(path: StrPath, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The content of a JSON file; raises ValueError where it is none. The hook makes the objects of their pairs."""
    try:
        return json.loads(read_text(path), object_pairs_hook=pairs_hook)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is cut off or broken at line {error.lineno}, column {error.colno}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("its brackets are nested beyond all measure") from error
    except ValueError as error:
        if "integer string conversion" in str(error):  # Python's limit of 4300 digits.
            raise ValueError("it holds a number of thousands of digits") from error
        raise


def repeated_key(pairs: list[tuple[str, Any]]) -> str | None:
    """The first key that an object of JSON has twice, of which Python would take the last without a word; or None."""
    counts = collections.Counter(key for key, _ in pairs)
    return next((key for key, count in counts.items() if count > 1), None)


def write_bytes(path: StrPath, content: bytes) -> None:
    """Writes a file atomically; makes its folder where missing and replaces an older file."""
    with atomic_file(path) as file:
        file.write(content)


def write_text(path: StrPath, content: str) -> None:
    """Writes a UTF-8 text file as `write_bytes` does."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: StrPath, content: Any, indent: int | None = 2) -> None:
    """Writes `content` as a JSON file, see `json_text`, as `write_bytes` does; what JSON cannot hold leaves no file."""
    write_text(path, json_text(content, indent))


def json_text(content: Any, indent: int | None = 2) -> str:
    """The text of a JSON file.

    JSON has no NaN and no infinity, and other programs refuse a file with them: null stands in their place.
    """
    return json.dumps(_without_nan(content), indent=indent, allow_nan=False) + "\n"


def _without_nan(content: Any) -> Any:
    """The same with None in place of numbers that are not finite."""
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


@contextlib.contextmanager
def atomic_file(path: StrPath, mode: str = "wb") -> Iterator[IO[Any]]:
    """A file to write large content to, piece by piece; it replaces `path` once the block has ended without error.

    Args:
        path: its folder is made where missing.
        mode: "wb" for bytes, "w" for UTF-8 text.
    """
    with atomic_path(path) as part, _opened(part, mode) as file:
        yield file


@contextlib.contextmanager
def atomic_path(path: StrPath) -> Iterator[str]:
    """A temporary path, for writers that open their file by themselves, such as `tf.io.TFRecordWriter`.

    The file written there replaces `path` once the block has ended without error; else it is deleted.
    """
    target = identity(path)  # A symbolic link stays, the file it points to is replaced.
    if not is_remote(target) and os.path.exists(target) and not os.path.isfile(target):
        yield target  # Not a file but, say, /dev/null, which must not be replaced by one.
        return
    make_folder(parent(target))
    if not is_remote(target):
        _clear_abandoned(parent(target) or ".")
    part = _name_for_part(target)
    try:
        yield part
        if is_remote(part):
            rename(part, target)
        else:
            sync(part)
            os.replace(part, target)
            remove(part)  # Still there where both names were links to the same file already.
    except BaseException as error:
        if isinstance(error, OSError) and (error.filename == part or _is_nameless_write_fault(error)):
            error.filename = target  # The name that users know.
        with contextlib.suppress(OSError):
            remove(part)
        raise


def sync(path: StrPath) -> None:
    """Waits until a local file's content, or the names in a local folder, are on the disk and survive a power cut.

    Without it, a machine that crashes could leave a new name with none of the new content. Remote storage keeps what it
    has taken, so nothing is done there.
    """
    if is_remote(path):
        return
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot be asked about folders.
        if not (os.path.isdir(path or ".") and error.errno in _CANNOT_SYNC):
            error.filename = os.fspath(path)
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: StrPath) -> None:
    """`sync` of all files and folders in a folder, and of itself; for a folder that is to be renamed into place."""
    for name in [] if is_remote(folder) else list_folder(folder):
        path = join(folder, name)
        sync_tree(path) if is_folder(path) else sync(path)
    sync(folder)


def is_unfinished(name: str) -> bool:
    """Whether a file name is that of a temporary file here; those of killed processes stay behind."""
    return _UNFINISHED.fullmatch(name) is not None


def append_line(path: StrPath, line: str) -> None:
    """Adds a line to a UTF-8 text file; a last line that a killed process has cut short is ended first."""
    before = read_bytes(path)[-1:] if exists(path) else b""
    make_folder(parent(path))
    content = ("" if before in (b"", b"\n") else "\n") + line + "\n"
    with _opened(path, "ab") as file:
        file.write(content.encode("utf-8"))


def link_or_copy(source: StrPath, target: StrPath) -> None:
    """Gives a file a second name: a hard link, or a copy where there are no links. Replaces an older `target`."""
    with atomic_path(target) as part:
        if is_remote(source) or is_remote(part):
            with _as_os_errors(source):
                _gfile().copy(os.fspath(source), part)
        else:
            try:
                os.link(source, part)
            except OSError:
                # No hard links on this file system, or two file systems. If `source` is gone, this fails as well.
                shutil.copyfile(source, part)


def exists(path: StrPath) -> bool:
    """Whether there is a file or folder."""
    if not is_remote(path):
        return os.path.exists(path)
    with _as_os_errors(path):
        return bool(_gfile().exists(os.fspath(path))) and not _is_only_a_beginning(os.fspath(path))


def is_folder(path: StrPath) -> bool:
    """Whether there is a folder."""
    if not is_remote(path):
        return os.path.isdir(path)
    with _as_os_errors(path):
        return bool(_gfile().isdir(os.fspath(path))) and not _is_only_a_beginning(os.fspath(path))


def special_kind(path: StrPath) -> str | None:
    """What a path is that is neither a file nor remote: "a folder", "a pipe", "a device" or "a socket"; None: a file.

    Reading a pipe waits for somebody to write to it, and reading some devices never ends.

    Raises:
        OSError: there is nothing, or it may not be looked at.
    """
    if is_remote(path):
        return None
    kind = stat.S_IFMT(os.stat(path).st_mode)
    return None if kind == stat.S_IFREG else _SPECIAL_KINDS.get(kind, "a device")


def change_stamp(path: StrPath) -> tuple[int, ...]:
    """Size in bytes, time of writing and the like: another stamp tells that the file has been written anew."""
    if not is_remote(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns, status.st_ino
    with _as_os_errors(path):
        status = _gfile().stat(os.fspath(path))
        return status.length, status.mtime_nsec


def size(path: StrPath) -> int:
    """The size of a file in bytes."""
    return change_stamp(path)[0]


def free_space(folder: StrPath) -> int | None:
    """The bytes that can still be written to a local folder; None for remote storage, which does not tell."""
    return None if is_remote(folder) else shutil.disk_usage(folder or ".").free


def list_folder(path: StrPath) -> list[str]:
    """The sorted names of what is in a folder."""
    if not is_remote(path):
        return sorted(os.listdir(path))
    with _as_os_errors(path):
        # Some storages mark folders by a slash at the end.
        names = sorted(name.rstrip("/") for name in _gfile().listdir(os.fspath(path)))
    if os.fspath(path).startswith("ram://"):
        return [name for name in names if exists(join(path, name))]  # See `_is_only_a_beginning`.
    return names


def glob(pattern: str) -> list[str]:
    """The sorted paths that match a pattern with * ? [...]."""
    if not is_remote(pattern):
        return sorted(local_glob.glob(pattern))
    with _as_os_errors(pattern):
        return sorted(_gfile().glob(pattern))


def make_folder(path: StrPath, exist_ok: bool = True) -> None:
    """Makes a folder and those above it; `exist_ok=False` raises FileExistsError where it is there already."""
    if not is_remote(path):
        try:
            os.makedirs(path or ".", exist_ok=exist_ok)
        except FileExistsError:
            if exist_ok:  # A file has this name; to someone who wants a folder, "File exists" would not say so clearly.
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(path)) from None
            raise
        return
    with _as_os_errors(path):
        if exist_ok:
            _gfile().makedirs(os.fspath(path))
        else:
            # Not every storage tells by itself; there, two processes at the same moment could both succeed.
            if exists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
            make_folder(parent(path))
            _gfile().mkdir(os.fspath(path))


def require_writable(folder: StrPath) -> None:
    """Makes the folder where missing and raises OSError unless files can be written there."""
    make_folder(folder)
    probe = _name_for_part(join(folder, "write_test"))
    try:
        with _opened(probe, "wb"):
            pass
    except OSError as error:
        error.filename = os.fspath(folder)  # The name that users know.
        raise
    remove(probe)


def rename(source: StrPath, target: StrPath) -> None:
    """Renames a file, replacing an older `target`, or a folder, to a name that is free; both local or both remote."""
    if not is_remote(source):
        os.replace(source, target)
    elif is_folder(source):
        # One by one: most remote storages have no other way, and TensorFlow's own in memory loses files on the way.
        make_folder(target)
        for name in list_folder(source):
            rename(join(source, name), join(target, name))
        remove_tree(source)
    else:
        with _as_os_errors(source):
            _gfile().rename(os.fspath(source), os.fspath(target), overwrite=True)


def remove(path: StrPath) -> None:
    """Deletes a file; one that is gone already is no error."""
    with contextlib.suppress(FileNotFoundError), _as_os_errors(path):
        _gfile().remove(os.fspath(path)) if is_remote(path) else os.remove(path)


def remove_tree(path: StrPath) -> None:
    """Deletes a folder and all that is in it; one that is gone already is no error."""
    with contextlib.suppress(FileNotFoundError), _as_os_errors(path):
        _gfile().rmtree(os.fspath(path)) if is_remote(path) else shutil.rmtree(path)


def _name_for_part(target: str) -> str:
    """A name for the temporary file beside `target`."""
    folder = parent(target)
    name = target[len(folder) :].strip("/" + os.sep)[:_NAME_PART]
    # Unique, as several processes may write the same file. Hidden, so that no pattern such as "ckpt-1.data-*" finds it.
    mark = f"{_machine()}{os.getpid():08x}{uuid.uuid4().hex[:12]}"
    return join(folder, f".{name}.{mark}.part")


@functools.lru_cache(maxsize=1024)
def _clear_abandoned(folder: str) -> None:
    """Deletes temporary files whose processes are gone, once for each folder that this process writes to."""
    with contextlib.suppress(OSError):  # Another user's, or deleted by another process at the same time.
        for name in list_folder(folder):
            if (match := _UNFINISHED.fullmatch(name)) and _is_abandoned(
                join(folder, name), match[1], int(match[2], 16)
            ):
                remove(join(folder, name))


def _is_abandoned(path: str, machine: str, process: int) -> bool:
    if os.name == "posix" and machine == _machine():
        try:
            os.kill(process, 0)  # Sends nothing.
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass
    return time.time() - os.stat(path).st_mtime > _SECONDS_TO_ABANDON


@functools.cache
def _machine() -> str:
    """Tells places apart in which the numbers of processes have different meanings, such as machines and containers."""
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:
        processes = ""
    return hashlib.sha256(f"{socket.gethostname()} {uuid.getnode()} {processes}".encode()).hexdigest()[:12]


@contextlib.contextmanager
def _opened(path: StrPath, mode: str) -> Iterator[IO[Any]]:
    if not is_remote(path):
        try:
            os.fsencode(path)
        except UnicodeEncodeError as error:
            reason = "the encoding of this system has no such name; set PYTHONUTF8=1"
            raise OSError(errno.EILSEQ, reason, os.fspath(path)) from error
        with open(path, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        return
    with _as_os_errors(path), _gfile().GFile(os.fspath(path), mode) as file:
        # TensorFlow opens a file at the first access: have it find missing files, and make empty ones, here.
        if "r" in mode:
            file.seek(0)
        else:
            file.write(b"" if "b" in mode else "")
        yield file


def _is_nameless_write_fault(error: OSError) -> bool:
    return error.filename is None and error.errno in _WRITE_FAULTS


def _gfile() -> Any:
    import tensorflow as tf  # Late: it takes seconds, and plain paths do without.

    return tf.io.gfile


def _is_only_a_beginning(path: str) -> bool:
    """Whether `path` is nothing but the first letters of other paths.

    TensorFlow's file system in memory, which tests use, takes "ckpt-1" for a folder, in which there is ".index", where
    there is "ckpt-1.index".
    """
    if not path.startswith("ram://") or not _gfile().isdir(path):
        return False
    return not _gfile().glob(f"{path}/*") and posixpath.basename(path) not in _gfile().listdir(parent(path))


@contextlib.contextmanager
def _as_os_errors(path: StrPath) -> Iterator[None]:
    """Turns TensorFlow's errors about a remote path into the OSErrors that a local path would raise."""
    if not is_remote(path):
        yield
        return
    import tensorflow as tf

    codes = {
        tf.errors.NotFoundError: errno.ENOENT,
        tf.errors.AlreadyExistsError: errno.EEXIST,
        tf.errors.PermissionDeniedError: errno.EACCES,
        tf.errors.UnauthenticatedError: errno.EACCES,
        tf.errors.ResourceExhaustedError: errno.ENOSPC,
    }
    try:
        yield
    except tf.errors.OpError as error:
        code = codes.get(type(error), errno.EIO)
        # OSError picks its subclass, e.g. FileNotFoundError, by the code.
        message = error.message.strip().split("\n")[0]
        raise OSError(code, message or os.strerror(code), os.fspath(path)) from error
